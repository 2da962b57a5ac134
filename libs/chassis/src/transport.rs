//! One transport type for generated clients: another process, or the same one.
//!
//! tonic's local path ignores `grpc-timeout`, and its remote path answers an expired deadline as CANCELLED; so one deadline stands
//! outside both. A panic in a local handler is answered as INTERNAL instead of unwinding the caller.

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

/// What generated clients are made over: `RegistryServiceClient::new(channel)`. Its error is a type without parameters: over a boxed
/// error, the compiler cannot prove that handlers which hold a call may move between threads.
pub type Channel = BoxCloneSyncService<Request<Body>, Response<Body>, Status>;

/// How long a call without a deadline of its own may wait for its first answer.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);

/// A channel to another process; it connects when first used, and again after a loss.
///
/// # Errors
/// The address is not a URI, or the key is not a header value.
pub fn remote(uri: &str, api_key: Option<&str>) -> Result<Channel, String> {
    let endpoint = tonic::transport::Endpoint::from_shared(uri.to_owned())
        .map_err(|error| format!("{uri:?} is not an address such as http://127.0.0.1:7460: {error}"))?
        .connect_timeout(Duration::from_secs(5))
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_while_idle(true);
    let key = match api_key {
        Some(key) => Some(
            HeaderValue::from_str(&format!("Bearer {key}"))
                .map_err(|_| "the API key holds characters that a header cannot".to_owned())?,
        ),
        None => None,
    };
    let channel = endpoint.connect_lazy();
    Ok(outer(move |mut request: Request<Body>| {
        if let Some(key) = &key {
            request.headers_mut().insert(http::header::AUTHORIZATION, key.clone());
        }
        let channel = channel.clone();
        async move { channel.oneshot(request).await.map_err(BoxError::from) }
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
