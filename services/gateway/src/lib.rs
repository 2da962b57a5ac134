//! The edge: an OpenAI-style HTTP API over the inference service, feedback on what it answered, and the gRPC of all services at one
//! address.

mod answering;
mod answers;
mod chat;
mod completions;
mod edge;
mod error;
mod feedback;
mod fields;
mod health;
mod models;
mod parameters;
mod settings;
mod shape;
mod sse;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use http::{Method, StatusCode, Uri};
use tidemill_chassis::{Service, Settings};
use tidemill_platform::{Clients, Platform};

use error::ApiError;

/// Defaults of the section `[gateway]`.
pub const DEFAULTS: &str = include_str!("default.toml");

/// What handlers work with.
struct Gateway {
    clients: Clients,
    store_answers: bool,
    timeout: Duration,
}

/// Builds the service.
///
/// # Errors
/// Wrong settings.
pub fn build(settings: &Settings, platform: &Platform) -> anyhow::Result<Service> {
    let own: settings::GatewaySettings = settings.section("gateway")?;
    own.check()?;
    let gateway = Gateway {
        clients: platform.clients.clone(),
        store_answers: own.store_answers,
        timeout: Duration::from_secs(own.request_timeout_seconds),
    };
    let service = Service::new("gateway").http(router(gateway));
    Ok(edge::forwarded(&platform.clients).fold(service, |service, (name, channel)| service.forward(name, channel)))
}

fn router(gateway: Gateway) -> Router {
    Router::new()
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/v1/completions", post(completions::create))
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/feedback", post(feedback::create))
        .route("/v1/answers/{id}", get(answers::one))
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .with_state(Arc::new(gateway))
}

async fn no_such_path(method: Method, uri: Uri) -> ApiError {
    let message = format!("{method} {} does not exist; see the gateway's README for what does", uri.path());
    ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", message).code("unknown_url")
}

async fn no_such_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not answer to {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request_error", message).code("method_not_allowed")
}

#[cfg(test)]
mod tests;
