//! API keys: who may call a listener, and on which addresses one may be opened.

use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::Either;
use http::{Request, Response};
use tonic::Status;
use tonic::body::Body;
use tower::{Layer, Service};

/// The keys of a listener; none means that everybody on this machine may call.
#[derive(Clone, Debug, Default)]
pub(crate) struct ApiKeys(Option<Arc<Vec<String>>>);

impl ApiKeys {
    /// Reads keys, one a line, from a file; an empty path means none.
    pub(crate) fn read(path: &str) -> Result<Self, String> {
        if path.is_empty() {
            return Ok(Self(None));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("server.api_keys_file = {path:?} cannot be read: {error}"))?;
        let keys: Vec<String> =
            text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned).collect();
        match keys.iter().find(|key| key.len() < 16) {
            Some(_) => Err(format!("server.api_keys_file = {path:?} holds a key of fewer than 16 characters")),
            None if keys.is_empty() => Err(format!("server.api_keys_file = {path:?} holds no key")),
            None => Ok(Self(Some(Arc::new(keys)))),
        }
    }

    /// Refuses an address that others can reach while there are no keys.
    pub(crate) fn check_address(&self, field: &str, address: SocketAddr) -> Result<(), String> {
        if address.ip().is_loopback() || self.0.is_some() {
            return Ok(());
        }
        Err(format!(
            "{field} = {address} can be reached from other machines and no API keys are configured; \
             use a loopback address such as 127.0.0.1:{}, or set server.api_keys_file",
            address.port()
        ))
    }

    /// Whether a request carries one of the keys (`Authorization: Bearer …`). Health checks need none.
    pub(crate) fn admit<B>(&self, request: &Request<B>) -> bool {
        let Some(keys) = &self.0 else { return true };
        let path = request.uri().path();
        if path.starts_with("/grpc.health.v1.Health/") || path == "/healthz" || path == "/readyz" {
            return true;
        }
        let given = request.headers().get(http::header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some(given) = given.and_then(|value| value.strip_prefix("Bearer ")) else { return false };
        // Every key is compared in full, so that the time taken tells nothing.
        keys.iter().fold(false, |found, key| found | equal(key.as_bytes(), given.as_bytes()))
    }
}

/// Refuses gRPC calls without a key.
#[derive(Clone)]
pub(crate) struct RequireKey(pub(crate) ApiKeys);

impl<S> Layer<S> for RequireKey {
    type Service = Guarded<S>;
    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { keys: self.0.clone(), inner }
    }
}

/// See [`RequireKey`].
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    keys: ApiKeys,
    inner: S,
}

impl<S, B> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<Body>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<S::Future, std::future::Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if self.keys.admit(&request) {
            return Either::Left(self.inner.call(request));
        }
        let status = Status::unauthenticated("an API key is required: send it as `authorization: Bearer <key>`");
        Either::Right(std::future::ready(Ok(status.into_http())))
    }
}

fn equal(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_address_than_loopback_needs_keys() {
        let open: SocketAddr = "0.0.0.0:7460".parse().unwrap();
        let message = ApiKeys::default().check_address("server.grpc_address", open).unwrap_err();
        assert!(message.contains("server.api_keys_file"), "{message}");
        assert!(ApiKeys::default().check_address("x", "127.0.0.1:1".parse().unwrap()).is_ok());
        let keys = ApiKeys(Some(Arc::new(vec!["0123456789abcdef".into()])));
        assert!(keys.check_address("x", open).is_ok());
    }

    #[test]
    fn a_request_without_the_key_is_not_admitted() {
        let keys = ApiKeys(Some(Arc::new(vec!["0123456789abcdef".into()])));
        let with = |value: &str| Request::builder().uri("/v1/models").header("authorization", value).body(()).unwrap();
        assert!(keys.admit(&with("Bearer 0123456789abcdef")));
        assert!(!keys.admit(&with("Bearer 0123456789abcdee")));
        assert!(!keys.admit(&with("0123456789abcdef")));
        assert!(!keys.admit(&Request::builder().uri("/v1/models").body(()).unwrap()));
        assert!(keys.admit(&Request::builder().uri("/healthz").body(()).unwrap()));
    }
}
