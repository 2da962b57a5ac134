//! `POST /v1/feedback`: a judgement on an answer, with what the answer's receipt knows filled in.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use http::HeaderMap;
use serde_json::{Value, json};
use tidemill_proto::ingestion::v1::feedback::Rating;
use tidemill_proto::ingestion::v1::{CreateFeedbackRequest, Feedback};
use tidemill_proto::names;
use uuid::Uuid;

use crate::error::ApiError;
use crate::fields::Fields;
use crate::{Gateway, answers};

pub(crate) async fn create(
    State(gateway): State<Arc<Gateway>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Value>, ApiError> {
    let mut fields = Fields::parse(body)?;
    let answer_id = fields.required_text("answer");
    let rating = match fields.text("rating").as_deref() {
        None => Rating::Unspecified,
        Some("up") => Rating::Up,
        Some("down") => Rating::Down,
        Some(other) => {
            fields.wrong("rating", format!("{other:?} should be \"up\" or \"down\""));
            Rating::Unspecified
        }
    };
    let correction = fields.text("correction").unwrap_or_default();
    let consent = fields.flag("consent");
    let (prompt, completion) = (fields.text("prompt"), fields.text("completion"));
    fields.finish()?;
    if rating == Rating::Unspecified && correction.is_empty() {
        return Err(ApiError::invalid("send a rating (\"up\" or \"down\"), a correction, or both").param("rating"));
    }
    let Some(consent) = consent else {
        let message = "say with true or false whether this may be trained on";
        return Err(ApiError::fields(&[("consent".to_owned(), message.to_owned())]));
    };

    let answer = answers::get(&gateway, &answer_id).await?;
    let sent = prompt.is_some() && (completion.is_some() || !correction.is_empty());
    if !sent && !answers::is_stored(&answer) {
        let message = format!(
            "the text of {} was not kept; send prompt and completion with the feedback, or ask for answers with \"store\": true",
            answer.name
        );
        return Err(ApiError::invalid(message).param("prompt").code("text_not_stored"));
    }
    let mut feedback = Feedback {
        answer: answer.name,
        prompt: prompt.unwrap_or(answer.prompt),
        completion: completion.unwrap_or(answer.completion),
        correction,
        consent,
        model_digest: answer.model_digest,
        model: answer.model,
        ..Feedback::default()
    };
    feedback.set_rating(rating);
    let request =
        CreateFeedbackRequest { feedback: Some(feedback), request_id: request_id(&headers), ..Default::default() };
    let created = gateway.clients.ingestion().create_feedback(request).await;
    let created = created.map_err(|status| ApiError::from(&status))?.into_inner();
    Ok(Json(json!({
        "id": names::last_id(&created.name),
        "object": "feedback",
        "created": created.create_time.map_or(0, |time| time.seconds),
        "answer": names::last_id(&created.answer),
        "model": created.model,
        "model_digest": created.model_digest,
        "consent": created.consent,
    })))
}

/// The Idempotency-Key header as a request id; a key that is no UUID stands for one.
fn request_id(headers: &HeaderMap) -> String {
    let Some(key) = headers.get("idempotency-key") else { return String::new() };
    let uuid = key.to_str().ok().and_then(|key| Uuid::try_parse(key).ok());
    uuid.unwrap_or_else(|| Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes())).to_string()
}
