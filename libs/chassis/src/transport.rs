//! One transport type for generated clients: another process, or the same one.
//!
//! tonic's local path ignores `grpc-timeout`, and its remote path answers an expired deadline as CANCELLED; so one deadline stands
//! outside both. A panic in a local handler is answered as INTERNAL instead of unwinding the caller.

mod connection;
mod replicas;

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use http::{HeaderValue, Request, Response};
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Layer, ServiceExt};

use crate::observe::{self, Observe};

use crate::tls::ClientTls;
use replicas::Replicas;

/// What generated clients are made over: `RegistryServiceClient::new(channel)`. Its error is a type without parameters: over a boxed
/// error, the compiler cannot prove that handlers which hold a call may move between threads.
pub type Channel = BoxCloneSyncService<Request<Body>, Response<Body>, Status>;

/// How long a call without a deadline of its own may wait for its first answer.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);

/// What a caller shows to the servers it calls.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// API key, where the server asks for one.
    pub api_key: Option<String>,
    /// Certificates, where the servers speak TLS.
    pub tls: Option<ClientTls>,
}

/// A channel to the replicas of a service: `http://host:port`, or several with commas between them. A name that resolves to several
/// addresses (a headless Service) counts as several replicas. Connects when first used; each call goes to the replica with the fewest
/// in flight, and to another one where that one did not take it. With certificates the scheme is `https`.
///
/// # Errors
/// The address is not a URI, the key is not a header value, or scheme and certificates do not fit.
pub fn remote(uris: &str, access: &Access) -> Result<Channel, String> {
    let key = match &access.api_key {
        Some(key) => Some(
            HeaderValue::from_str(&format!("Bearer {key}"))
                .map_err(|_| "the API key holds characters that a header cannot".to_owned())?,
        ),
        None => None,
    };
    let replicas = Replicas::new(uris, access.tls.clone())?;
    Ok(outer(move |mut request: Request<Body>| {
        if let Some(key) = &key {
            request.headers_mut().insert(http::header::AUTHORIZATION, key.clone());
        }
        let replicas = replicas.clone();
        async move { replicas.call(request).await }
    }))
}

/// A channel to services in this process, through the same encoding as on a wire.
pub fn local(routes: Routes) -> Channel {
    let routes = Observe.layer(routes.prepare());
    outer(move |request: Request<Body>| {
        let routes = routes.clone();
        async move {
            let answered = AssertUnwindSafe(routes.oneshot(request)).catch_unwind().await;
            match answered {
                Ok(Ok(response)) => Ok(response),
                Ok(Err(never)) => match never {},
                Err(_panic) => {
                    tracing::error!("a handler panicked");
                    Ok(Status::internal("internal error; the server's log has the cause").into_http())
                }
            }
        }
    })
}

/// Adds routes that hand every call of a service on to a channel.
pub(crate) fn forward(mut routes: Routes, full_name: &str, channel: Channel) -> Routes {
    let onward = tower::service_fn(move |request: Request<axum::body::Body>| {
        let answer = channel.clone().oneshot(request.map(Body::new));
        async move { Ok::<_, std::convert::Infallible>(answer.await.unwrap_or_else(|status| status.into_http())) }
    });
    let router = std::mem::take(routes.axum_router_mut());
    *routes.axum_router_mut() = router.route_service(&format!("/{full_name}/{{method}}"), onward);
    routes
}

fn outer<F, R>(call: F) -> Channel
where
    F: Fn(Request<Body>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Result<Response<Body>, BoxError>> + Send + 'static,
{
    BoxCloneSyncService::new(tower::service_fn(move |mut request: Request<Body>| {
        let outgoing = observe::outgoing(&mut request);
        let deadline = deadline_of(&request).unwrap_or(DEFAULT_DEADLINE);
        let answer = call(request);
        outgoing.follow(async move {
            tokio::select! {
                biased;
                answer = answer => answer.map_err(|error| unreachable(&error)),
                () = tokio::time::sleep(deadline) => {
                    let text = format!("no answer within {} ms", deadline.as_millis());
                    Ok(Status::new(Code::DeadlineExceeded, text).into_http())
                }
            }
        })
    }))
}

/// A connection error as UNAVAILABLE: tonic would call it UNKNOWN.
fn unreachable(error: &BoxError) -> Status {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Status::unavailable(text)
}

/// Reads `grpc-timeout`: digits and one of H, M, S, m, u, n.
fn deadline_of(request: &Request<Body>) -> Option<Duration> {
    let text = request.headers().get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(value.checked_mul(3600)?),
        "M" => Duration::from_secs(value.checked_mul(60)?),
        "S" => Duration::from_secs(value),
        "m" => Duration::from_millis(value),
        "u" => Duration::from_micros(value),
        "n" => Duration::from_nanos(value),
        _ => return None,
    })
}
