//! `GET /healthz`: this process answers. `GET /readyz`: so does the inference service behind it.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use tidemill_proto::inference::v1::ListDeploymentsRequest;

use crate::Gateway;
use crate::error::ApiError;

pub(crate) async fn live() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

pub(crate) async fn ready(State(gateway): State<Arc<Gateway>>) -> Result<Json<Value>, ApiError> {
    let request = ListDeploymentsRequest { page_size: 1, ..ListDeploymentsRequest::default() };
    let answered = gateway.clients.inference().list_deployments(request).await;
    answered.map_err(|status| ApiError::from(&status))?;
    Ok(Json(json!({"status": "ready"})))
}
