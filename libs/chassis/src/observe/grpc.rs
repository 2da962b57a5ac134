//! gRPC: the server's side as a layer, also around calls that stay in this process; the client's side around every call.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::task::{Context, Poll};
use std::time::Instant;

use futures::future::{BoxFuture, Either, FutureExt};
use http::{HeaderMap, Request, Response};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};

use super::body::{End, Watch, Watched};
use crate::telemetry::{Parent, inject, inject_unfollowed};

/// A method of ours; others share one label, because a caller may invent as many as he likes.
#[derive(Clone, Copy, Debug)]
struct Method {
    service: &'static str,
    method: &'static str,
    /// `package.Service/Method`.
    full: &'static str,
}

const UNKNOWN: Method = Method { service: "unknown", method: "unknown", full: "unknown" };

/// The method of a path; none for health checks and reflection, of which there are many and which tell nothing.
fn method(path: &str) -> Option<Method> {
    static PATHS: LazyLock<Vec<(String, String, String)>> = LazyLock::new(|| {
        let services = tidemill_proto::pool().services();
        let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
        methods
            .map(|method| (method.parent_service().full_name().to_owned(), method.name().to_owned()))
            .map(|(service, method)| (format!("{service}/{method}"), service, method))
            .collect()
    });
    static METHODS: LazyLock<HashMap<&'static str, Method>> = LazyLock::new(|| {
        PATHS.iter().map(|(full, service, method)| (full.as_str(), Method { service, method, full })).collect()
    });
    let path = path.strip_prefix('/').unwrap_or(path);
    (!path.starts_with("grpc.")).then(|| METHODS.get(path).copied().unwrap_or(UNKNOWN))
}

/// Watches the calls that a server answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observe;

impl<S> Layer<S> for Observe {
    type Service = Observed<S>;
    fn layer(&self, inner: S) -> Observed<S> {
        Observed { inner }
    }
}

/// See [`Observe`].
#[derive(Clone)]
pub(crate) struct Observed<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Observed<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
    S::Future: Send + 'static,
    S::Error: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Some(method) = method(request.uri().path()) else { return Either::Left(self.inner.call(request)) };
        let span = info_span!(
            "grpc",
            otel.name = method.full,
            otel.kind = "server",
            otel.status_code = Empty,
            rpc.system = "grpc",
            rpc.service = method.service,
            rpc.method = method.method,
            rpc.grpc.status_code = Empty,
        );
        let span = Parent::from_headers(request.headers()).adopt(span);
        let watch = Call { code: None, span: span.clone(), measured: Some(Measured::begin(method)) };
        let answer = span.in_scope(|| self.inner.call(request));
        Either::Right(async move { answer.await.map(|response| watch.over(response)) }.instrument(span).boxed())
    }
}

/// Begins the client's side of a call: its context goes into the headers. A call outside any trace, such as those that services make
/// all the time to look after things, says that nobody need follow it.
pub(crate) fn outgoing<B>(request: &mut Request<B>) -> Outgoing {
    let method = method(request.uri().path());
    let span = match method {
        Some(method) if !Span::current().is_none() => info_span!(
            "grpc",
            otel.name = method.full,
            otel.kind = "client",
            otel.status_code = Empty,
            rpc.system = "grpc",
            rpc.service = method.service,
            rpc.method = method.method,
            rpc.grpc.status_code = Empty,
        ),
        _ => Span::none(),
    };
    match span.is_none() && Span::current().is_none() {
        true => inject_unfollowed(request.headers_mut()),
        false => inject(&span, request.headers_mut()),
    }
    Outgoing(span)
}

/// A call that has begun.
pub(crate) struct Outgoing(Span);

impl Outgoing {
    /// Follows a call to the end of its answer.
    pub(crate) async fn follow(
        self,
        answer: impl Future<Output = Result<Response<Body>, Status>>,
    ) -> Result<Response<Body>, Status> {
        let watch = Call { code: None, span: self.0.clone(), measured: None };
        match answer.instrument(self.0).await {
            Ok(response) => Ok(watch.over(response)),
            Err(status) => {
                watch.ended(status.code());
                Err(status)
            }
        }
    }
}

/// One call, seen from either side.
struct Call {
    code: Option<Code>,
    span: Span,
    /// Only servers measure: what a client sees is measured where it is answered.
    measured: Option<Measured>,
}

impl Call {
    /// Puts a response under watch. One without a body says in its headers how it ended.
    fn over(mut self, response: Response<Body>) -> Response<Body> {
        self.trailers(response.headers());
        match self.code {
            Some(code) => {
                self.ended(code);
                response
            }
            None => {
                let span = self.span.clone();
                response.map(|body| Body::new(Watched::new(body, span, self)))
            }
        }
    }

    fn ended(self, code: Code) {
        self.span.record("rpc.grpc.status_code", code as i32);
        let failed = match &self.measured {
            Some(_) => is_fault_of_ours(code),
            // Whoever leaves a stream has what he wanted.
            None => !matches!(code, Code::Ok | Code::Cancelled),
        };
        if failed {
            self.span.record("otel.status_code", "ERROR");
        }
        if let Some(measured) = self.measured {
            measured.end(code);
        }
    }
}

impl Watch for Call {
    fn trailers(&mut self, trailers: &HeaderMap) {
        self.code = trailers.get("grpc-status").map(|value| Code::from_bytes(value.as_bytes()));
    }

    fn end(self, how: End) {
        let code = match (self.code, how) {
            (Some(code), _) => code,
            (None, End::Dropped) => Code::Cancelled,
            (None, End::Complete | End::Broken) => Code::Unknown,
        };
        self.ended(code);
    }
}

/// Rate, errors, duration of one method, and how many are in flight. Dropped before its end, a call counts as cancelled.
struct Measured {
    method: Method,
    began: Instant,
    code: Code,
}

impl Measured {
    fn begin(method: Method) -> Self {
        let Method { service, method: name, .. } = method;
        metrics::gauge!("tidemill_grpc_requests_in_flight", "service" => service, "method" => name).increment(1.0);
        Self { method, began: Instant::now(), code: Code::Cancelled }
    }

    fn end(mut self, code: Code) {
        self.code = code;
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        let Method { service, method, .. } = self.method;
        let code = code_name(self.code);
        metrics::gauge!("tidemill_grpc_requests_in_flight", "service" => service, "method" => method).decrement(1.0);
        metrics::counter!("tidemill_grpc_requests_total", "service" => service, "method" => method, "code" => code)
            .increment(1);
        metrics::histogram!("tidemill_grpc_request_duration_seconds", "service" => service, "method" => method)
            .record(self.began.elapsed());
    }
}

/// What OpenTelemetry counts as an error of the server, and not of its caller.
fn is_fault_of_ours(code: Code) -> bool {
    use Code::*;
    matches!(code, Unknown | DeadlineExceeded | Unimplemented | Internal | Unavailable | DataLoss)
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_known_by_their_paths_and_others_share_a_label() {
        let known = method("/tidemill.inference.v1.InferenceService/GenerateStream").unwrap();
        assert_eq!((known.service, known.method), ("tidemill.inference.v1.InferenceService", "GenerateStream"));
        assert_eq!(method("/tidemill.inference.v1.InferenceService/Nonsense").unwrap().method, "unknown");
        assert!(method("/grpc.health.v1.Health/Check").is_none());
    }
}
