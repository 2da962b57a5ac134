//! `GET /v1/models`: the deployments that can answer, under their ids.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use http::StatusCode;
use serde_json::{Value, json};
use tidemill_proto::inference::v1::{Deployment, ListDeploymentsRequest};
use tidemill_proto::names;

use crate::Gateway;
use crate::error::ApiError;

pub(crate) async fn list(State(gateway): State<Arc<Gateway>>) -> Result<Json<Value>, ApiError> {
    let data: Vec<Value> = answering(&gateway).await?.iter().map(model).collect();
    Ok(Json(json!({"object": "list", "data": data})))
}

pub(crate) async fn one(State(gateway): State<Arc<Gateway>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let deployments = answering(&gateway).await?;
    let named = |deployment: &&Deployment| deployment.name == id || names::last_id(&deployment.name) == id;
    match deployments.iter().find(named) {
        Some(deployment) => Ok(Json(model(deployment))),
        None => {
            let message = format!(
                "the model {id:?} does not exist or has no version loaded yet; GET /v1/models lists those that answer"
            );
            let error = ApiError::new(StatusCode::NOT_FOUND, "invalid_request_error", message);
            Err(error.code("model_not_found").param("model"))
        }
    }
}

/// The deployments with a version loaded.
async fn answering(gateway: &Gateway) -> Result<Vec<Deployment>, ApiError> {
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListDeploymentsRequest { page_size: 1000, page_token };
        let page = gateway.clients.inference().list_deployments(request).await;
        let page = page.map_err(|status| ApiError::from(&status))?.into_inner();
        found.extend(page.deployments.into_iter().filter(|deployment| !deployment.model_digest.is_empty()));
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        page_token = page.next_page_token;
    }
}

fn model(deployment: &Deployment) -> Value {
    json!({
        "id": names::last_id(&deployment.name),
        "object": "model",
        "created": deployment.create_time.map_or(0, |time| time.seconds),
        "owned_by": "tidemill",
        "root": deployment.model_version,
        "digest": deployment.model_digest,
    })
}
