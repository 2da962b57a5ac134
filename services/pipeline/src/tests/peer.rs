//! A gRPC server made of closures, one for each method.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use prost::Message;
use tidemill_chassis::transport::Channel;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

type Handler = Arc<dyn Fn(http::Request<Body>) -> BoxFuture<'static, http::Response<Body>> + Send + Sync>;

/// Methods by path: `tidemill.training.v1.TrainingService/GetTrainingJob`.
#[derive(Clone, Default)]
pub(super) struct Peer {
    methods: BTreeMap<String, Handler>,
}

impl Peer {
    /// Adds a method that answers once.
    pub(super) fn unary<Q, A, F>(&mut self, path: &str, answer: F)
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
        F: Fn(Q) -> Result<A, Status> + Clone + Send + Sync + 'static,
    {
        let method = move |request: http::Request<Body>| {
            let answer = answer.clone();
            async move {
                let service = tower::service_fn(move |request: Request<Q>| {
                    let answered = answer(request.into_inner()).map(Response::new);
                    async move { answered }
                });
                Grpc::new(ProstCodec::<A, Q>::default()).unary(service, request).await
            }
            .boxed()
        };
        self.methods.insert(path.to_owned(), Arc::new(method));
    }

    /// Adds a method that answers with a stream.
    pub(super) fn stream<Q, A, F>(&mut self, path: &str, answer: F)
    where
        Q: Message + Default + 'static,
        A: Message + Default + 'static,
        F: Fn(Q) -> BoxStream<'static, Result<A, Status>> + Clone + Send + Sync + 'static,
    {
        let method = move |request: http::Request<Body>| {
            let answer = answer.clone();
            async move {
                let service = tower::service_fn(move |request: Request<Q>| {
                    let stream = answer(request.into_inner()).boxed();
                    async move { Ok::<_, Status>(Response::new(stream)) }
                });
                Grpc::new(ProstCodec::<A, Q>::default()).server_streaming(service, request).await
            }
            .boxed()
        };
        self.methods.insert(path.to_owned(), Arc::new(method));
    }

    /// A channel to it.
    pub(super) fn channel(&self) -> Channel {
        let methods = Arc::new(self.methods.clone());
        Channel::new(tower::service_fn(move |request: http::Request<Body>| {
            let method = methods.get(request.uri().path().trim_start_matches('/')).cloned();
            async move {
                match method {
                    Some(method) => Ok(method(request).await),
                    None => Err(Status::unimplemented(format!("{} is not part of this test", request.uri().path()))),
                }
            }
        }))
    }
}
