//! Reads a JSON object field by field, collecting every mistake: wrong types, missing ones, and names that mean nothing here.

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use serde_json::{Map, Value};

use crate::error::ApiError;

/// The fields of a request's body that were not read yet. Null means absent.
#[derive(Debug)]
pub(crate) struct Fields {
    map: Map<String, Value>,
    wrong: Vec<(String, String)>,
}

impl Fields {
    /// Reads a body, which arrives as an error where it is too large.
    pub(crate) fn parse(body: Result<Bytes, BytesRejection>) -> Result<Self, ApiError> {
        let body = body.map_err(|rejection| {
            ApiError::new(rejection.status(), "invalid_request_error", rejection.body_text()).code("body_not_read")
        })?;
        match serde_json::from_slice(&body) {
            Ok(Value::Object(map)) => Ok(Self { map, wrong: Vec::new() }),
            Ok(_) => {
                Err(ApiError::invalid("the body is JSON but no object; send {\"model\": ..., ...}")
                    .code("invalid_json"))
            }
            Err(error) => Err(ApiError::invalid(format!("the body is not valid JSON: {error}")).code("invalid_json")),
        }
    }

    /// Notes a mistake.
    pub(crate) fn wrong(&mut self, field: &str, text: impl Into<String>) {
        self.wrong.push((field.to_owned(), text.into()));
    }

    /// Takes a field as it is.
    pub(crate) fn take(&mut self, field: &str) -> Option<Value> {
        self.map.shift_remove(field).filter(|value| !value.is_null())
    }

    /// Takes a text.
    pub(crate) fn text(&mut self, field: &str) -> Option<String> {
        self.typed(field, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// Takes a text that must be there.
    pub(crate) fn required_text(&mut self, field: &str) -> String {
        if self.map.get(field).is_none_or(Value::is_null) {
            self.map.shift_remove(field);
            self.wrong(field, "missing");
            return String::new();
        }
        self.text(field).unwrap_or_default()
    }

    /// Takes a number.
    pub(crate) fn number(&mut self, field: &str) -> Option<f64> {
        self.typed(field, "a number", Value::as_f64)
    }

    /// Takes a whole number that fits 32 bits.
    pub(crate) fn integer(&mut self, field: &str) -> Option<i32> {
        self.typed(field, "a whole number", |value| {
            let whole = value.as_i64().or_else(|| value.as_f64().filter(|n| n.fract() == 0.0).map(|n| n as i64))?;
            i32::try_from(whole).ok()
        })
    }

    /// Takes true or false.
    pub(crate) fn flag(&mut self, field: &str) -> Option<bool> {
        self.typed(field, "true or false", Value::as_bool)
    }

    /// Takes a field of OpenAI's API that is not supported: it may be there as long as it asks for nothing.
    pub(crate) fn unsupported(&mut self, field: &str, asks_for_nothing: impl FnOnce(&Value) -> bool) {
        if let Some(value) = self.take(field)
            && !asks_for_nothing(&value)
        {
            self.wrong(field, "not supported by this server; leave it out");
        }
    }

    /// Takes fields that change nothing about the answer.
    pub(crate) fn ignore(&mut self, fields: &[&str]) {
        for field in fields {
            self.map.shift_remove(*field);
        }
    }

    /// Ends the reading: whatever is left is unknown.
    pub(crate) fn finish(mut self) -> Result<(), ApiError> {
        let unknown: Vec<String> = self.map.keys().cloned().collect();
        for field in unknown {
            self.wrong(&field, "unknown field");
        }
        if self.wrong.is_empty() { Ok(()) } else { Err(ApiError::fields(&self.wrong)) }
    }

    fn typed<T>(&mut self, field: &str, what: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let value = self.take(field)?;
        let read = read(&value);
        if read.is_none() {
            let shown: String = value.to_string().chars().take(60).collect();
            self.wrong(field, format!("{shown} should be {what}"));
        }
        read
    }
}
