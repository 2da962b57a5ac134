//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::response::Response;
use serde_json::Value;
use tidemill_proto::inference::v1::generate_request::Input;
use tidemill_proto::inference::v1::{Chat, ChatMessage};

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
    let messages = messages(&mut fields);
    let none = |value: &Value| value.as_array().is_some_and(Vec::is_empty);
    fields.unsupported("tools", none);
    fields.unsupported("functions", none);
    fields.unsupported("tool_choice", |value| value == "none" || value == "auto");
    fields.unsupported("function_call", |value| value == "none" || value == "auto");
    fields.unsupported("response_format", |value| value["type"] == "text");
    fields.unsupported("modalities", |value| *value == serde_json::json!(["text"]));
    fields.finish()?;
    answering::answer(&gateway, Shape::Chat, &parameters, Input::Chat(Chat { messages })).await
}

fn messages(fields: &mut Fields) -> Vec<ChatMessage> {
    let list = match fields.take("messages") {
        Some(Value::Array(list)) => list,
        Some(_) => {
            fields.wrong("messages", "should be a list of messages");
            return Vec::new();
        }
        None => {
            fields.wrong("messages", "missing");
            return Vec::new();
        }
    };
    let mut messages = Vec::new();
    for (index, message) in list.iter().enumerate() {
        let role = match message["role"].as_str() {
            // OpenAI's newer word for the same.
            Some("developer") => "system".to_owned(),
            Some(role) => role.to_owned(),
            None => {
                fields.wrong(&format!("messages[{index}].role"), "missing, or not a string");
                continue;
            }
        };
        match content(&message["content"]) {
            Ok(content) => messages.push(ChatMessage { role, content }),
            Err(problem) => fields.wrong(&format!("messages[{index}].content"), problem),
        }
    }
    messages
}

/// A text, or a list of text parts.
fn content(value: &Value) -> Result<String, &'static str> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => parts
            .iter()
            .map(|part| match (part["type"].as_str(), part["text"].as_str()) {
                (Some("text"), Some(text)) => Ok(text),
                (Some("text"), None) => Err("a part of type text has no text"),
                _ => Err("only parts of type text are supported"),
            })
            .collect(),
        Value::Null => Err("missing"),
        _ => Err("should be a string or a list of text parts"),
    }
}
