//! `POST /v1/completions`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use serde_json::Value;
use tidemill_proto::inference::v1::generate_request::Input;

use crate::error::ApiError;
use crate::fields::Fields;
use crate::parameters::Parameters;
use crate::shape::Shape;
use crate::{Gateway, answering};

pub(crate) async fn create(
    State(gateway): State<Arc<Gateway>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, ApiError> {
    let mut fields = Fields::parse(body)?;
    let parameters = Parameters::read(&mut fields, gateway.store_answers);
    let prompt = prompt(&mut fields);
    fields.unsupported("echo", |value| *value == Value::Bool(false));
    fields.unsupported("suffix", |value| value == "");
    fields.unsupported("best_of", |value| value.as_i64() == Some(1));
    fields.finish()?;
    answering::answer(&gateway, Shape::Completion, &parameters, Input::Prompt(prompt)).await
}

/// A text, or a list of one text.
fn prompt(fields: &mut Fields) -> String {
    let problem = match fields.take("prompt") {
        None => "missing",
        Some(Value::String(prompt)) => return prompt,
        Some(Value::Array(list)) => match list.as_slice() {
            [Value::String(prompt)] => return prompt.clone(),
            [Value::String(_), ..] => "several prompts; send one a request",
            _ => "should be a string: token ids are not accepted",
        },
        Some(_) => "should be a string",
    };
    fields.wrong("prompt", problem);
    String::new()
}
