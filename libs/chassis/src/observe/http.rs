//! HTTP: a middleware around every route.

use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};

use super::body::{End, Watch, Watched};
use crate::telemetry::Parent;

/// Probes come often and tell nothing.
const PROBES: &[&str] = &["/healthz", "/readyz"];

/// Watches one request to the end of its answer.
pub(crate) async fn observe(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    if route.as_deref().is_some_and(|route| PROBES.contains(&route)) {
        return next.run(request).await;
    }
    // A path that no route has is not a label: there are as many as callers invent. Neither is a method.
    let route = route.unwrap_or_else(|| "unknown".to_owned());
    let method = match request.method().as_str() {
        known @ ("GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "HEAD" | "OPTIONS") => known.to_owned(),
        _ => "OTHER".to_owned(),
    };
    let span = info_span!(
        "http",
        otel.name = format!("{method} {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
    );
    let span = Parent::from_headers(request.headers()).adopt(span);
    let mut exchange = Exchange::begin(method, route, span.clone());
    let response = next.run(request).instrument(span.clone()).await;
    exchange.status = Some(response.status());
    response.map(|body| axum::body::Body::new(Watched::new(body, span, exchange)))
}

/// One request: how many are in flight, and at its end rate, errors and duration. A caller that left counts as 499.
struct Exchange {
    method: String,
    route: String,
    span: Span,
    began: Instant,
    status: Option<StatusCode>,
    left: bool,
}

impl Exchange {
    fn begin(method: String, route: String, span: Span) -> Self {
        let labels = [("method", method.clone()), ("route", route.clone())];
        metrics::gauge!("tidemill_http_requests_in_flight", &labels).increment(1.0);
        Self { method, route, span, began: Instant::now(), status: None, left: false }
    }
}

impl Watch for Exchange {
    fn trailers(&mut self, _: &HeaderMap) {}

    fn end(mut self, how: End) {
        self.left = how == End::Dropped;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let code = match self.status {
            Some(status) if !self.left => status.as_u16(),
            _ => 499,
        };
        self.span.record("http.response.status_code", i64::from(code));
        if code >= 500 {
            self.span.record("otel.status_code", "ERROR");
        }
        let labels = [("method", self.method.clone()), ("route", self.route.clone())];
        metrics::gauge!("tidemill_http_requests_in_flight", &labels).decrement(1.0);
        metrics::histogram!("tidemill_http_request_duration_seconds", &labels).record(self.began.elapsed());
        let [method, route] = labels;
        let labels = [method, route, ("code", code.to_string())];
        metrics::counter!("tidemill_http_requests_total", &labels).increment(1);
    }
}
