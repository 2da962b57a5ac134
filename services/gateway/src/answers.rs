//! `GET /v1/answers/{id}`: the receipt of an answer.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use tidemill_proto::inference::v1::{Answer, GetAnswerRequest};
use tidemill_proto::names;

use crate::Gateway;
use crate::error::ApiError;

pub(crate) async fn one(State(gateway): State<Arc<Gateway>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let answer = get(&gateway, &id).await?;
    Ok(Json(json!({
        "id": names::last_id(&answer.name),
        "object": "answer",
        "created": answer.create_time.map_or(0, |time| time.seconds),
        "deployment": answer.deployment,
        "model": answer.model,
        "model_version": answer.model_version,
        "model_digest": answer.model_digest,
        "usage": {
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": answer.prompt_tokens.saturating_add(answer.completion_tokens),
        },
        "finish_reason": answer.finish_reason,
        "seed": answer.seed,
        "stored": is_stored(&answer),
        "prompt": is_stored(&answer).then_some(&answer.prompt),
        "completion": is_stored(&answer).then_some(&answer.completion),
    })))
}

/// Whether the text was kept with the receipt.
pub(crate) fn is_stored(answer: &Answer) -> bool {
    !answer.prompt.is_empty() || !answer.completion.is_empty()
}

/// Reads a receipt by any of its ids: `cmpl-x`, `chatcmpl-x`, `answers/x`, `x`.
pub(crate) async fn get(gateway: &Gateway, id: &str) -> Result<Answer, ApiError> {
    let bare = ["cmpl-", "chatcmpl-", "answers/"].iter().find_map(|prefix| id.strip_prefix(prefix)).unwrap_or(id);
    let request = GetAnswerRequest { name: format!("answers/{bare}") };
    let answer = gateway.clients.inference().get_answer(request).await;
    Ok(answer.map_err(|status| ApiError::from(&status).param("answer"))?.into_inner())
}
