//! Errors in OpenAI's shape, and the one place where a gRPC status becomes one.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// `{"error": {"message", "type", "param", "code"}}` with its HTTP status.
#[derive(Clone, Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    message: String,
    param: Option<String>,
    code: Option<String>,
    retry_after_seconds: Option<u64>,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        Self { status, kind, message: message.into(), param: None, code: None, retry_after_seconds: None }
    }

    /// A request that cannot be understood.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// Wrong fields, all at once; the shape has room to name one apart from the message, the first.
    pub(crate) fn fields(wrong: &[(String, String)]) -> Self {
        let message = wrong.iter().map(|(field, text)| format!("{field}: {text}")).collect::<Vec<_>>().join("; ");
        Self { param: wrong.first().map(|(field, _)| field.clone()), ..Self::invalid(message) }
    }

    /// Sets what programs match on.
    #[must_use]
    pub(crate) fn code(self, code: &str) -> Self {
        Self { code: Some(code.to_owned()), ..self }
    }

    /// Names the field that is meant.
    #[must_use]
    pub(crate) fn param(self, param: &str) -> Self {
        Self { param: Some(param.to_owned()), ..self }
    }

    /// An error of a call about a model: what is not found is the model.
    pub(crate) fn about_model(status: &Status) -> Self {
        let error = Self::from(status);
        if status.code() == Code::NotFound { error.code("model_not_found").param("model") } else { error }
    }

    /// The body.
    pub(crate) fn body(&self) -> Value {
        json!({"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}})
    }
}

impl From<&Status> for ApiError {
    fn from(status: &Status) -> Self {
        let details = status.get_error_details();
        let reason = details.error_info().map(|info| info.reason.as_str()).unwrap_or_default();
        let (http, kind, code) = match status.code() {
            Code::InvalidArgument | Code::OutOfRange => (StatusCode::BAD_REQUEST, "invalid_request_error", None),
            Code::FailedPrecondition => (StatusCode::BAD_REQUEST, "invalid_request_error", Some("failed_precondition")),
            Code::NotFound => (StatusCode::NOT_FOUND, "invalid_request_error", Some("not_found")),
            Code::AlreadyExists | Code::Aborted => (StatusCode::CONFLICT, "invalid_request_error", Some("conflict")),
            Code::Unauthenticated => (StatusCode::UNAUTHORIZED, "invalid_request_error", Some("invalid_api_key")),
            Code::PermissionDenied => (StatusCode::FORBIDDEN, "invalid_request_error", Some("forbidden")),
            // A full disk is ours to mend; a full queue is the load's.
            Code::ResourceExhausted if reason == "DISK_FULL" => {
                (StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("disk_full"))
            }
            Code::ResourceExhausted => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some("queue_full")),
            Code::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("unavailable")),
            Code::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "server_error", Some("timeout")),
            Code::Unimplemented => (StatusCode::NOT_IMPLEMENTED, "server_error", Some("unimplemented")),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "server_error", Some("internal_error")),
        };
        let wrong: Vec<(String, String)> = details.bad_request().map_or_else(Vec::new, |bad| {
            bad.field_violations.iter().map(|v| (param_of(&v.field).to_owned(), v.description.clone())).collect()
        });
        let mut error = match wrong.is_empty() {
            true => Self::new(http, kind, status.message()),
            false => Self { status: http, ..Self::fields(&wrong) },
        };
        error.code = code.map(str::to_owned);
        if matches!(http, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            let delay = details.retry_info().and_then(|info| info.retry_delay);
            error.retry_after_seconds = Some(delay.map_or(1, |delay| delay.as_secs().max(1)));
        }
        error
    }
}

/// A field of ours under the name that it has in OpenAI's requests.
fn param_of(field: &str) -> &str {
    ["sampling.", "chat.", "feedback."].iter().find_map(|prefix| field.strip_prefix(prefix)).unwrap_or(field)
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(self.body())).into_response();
        if let Some(seconds) = self.retry_after_seconds {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use tidemill_chassis::Fault;

    use super::*;

    #[test]
    fn every_code_has_its_http_status_and_type() {
        for (code, http, kind) in [
            (Code::InvalidArgument, 400, "invalid_request_error"),
            (Code::FailedPrecondition, 400, "invalid_request_error"),
            (Code::NotFound, 404, "invalid_request_error"),
            (Code::AlreadyExists, 409, "invalid_request_error"),
            (Code::Unauthenticated, 401, "invalid_request_error"),
            (Code::ResourceExhausted, 429, "rate_limit_error"),
            (Code::Unavailable, 503, "server_error"),
            (Code::DeadlineExceeded, 504, "server_error"),
            (Code::Internal, 500, "server_error"),
            (Code::DataLoss, 500, "server_error"),
        ] {
            let error = ApiError::from(&Status::new(code, "why"));
            assert_eq!((error.status.as_u16(), error.kind), (http, kind), "{code:?}");
        }
        let status = Status::from(Fault::exhausted("DISK_FULL", "the disk is full"));
        assert_eq!(ApiError::from(&status).status, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn wrong_fields_have_the_names_of_the_http_request() {
        let wrong =
            vec![("sampling.top_p".to_owned(), "too big".to_owned()), ("chat.messages".to_owned(), "empty".to_owned())];
        let body = ApiError::from(&Status::from(Fault::invalid_fields(wrong))).body();
        assert_eq!(body["error"]["param"], "top_p");
        assert_eq!(body["error"]["message"], "top_p: too big; messages: empty");
    }

    #[test]
    fn a_refusal_for_load_says_when_to_come_again() {
        let response = ApiError::from(&Status::from(Fault::exhausted("QUEUE_FULL", "full"))).into_response();
        assert_eq!(response.headers()[RETRY_AFTER], "1");
    }
}
