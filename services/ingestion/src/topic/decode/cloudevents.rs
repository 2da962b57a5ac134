//! CloudEvents 1.0 in Kafka: attributes in headers (binary mode), or all of it in one JSON object (structured mode).

use std::borrow::Cow;
use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;
use tidemill_eventlog::reader::Message;

use super::{Cause, Content};

/// Attributes that every event has.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

/// The content of an event; its attributes become metadata, as `ce_<name>`.
pub(super) fn open<'a>(
    message: &Message,
    value: &'a [u8],
    metadata: &mut BTreeMap<String, String>,
) -> Result<Content<'a>, Cause> {
    let content_type = header(message, "content-type").unwrap_or_default().to_ascii_lowercase();
    let content = match content_type.split(';').next().unwrap_or_default().trim() {
        "application/cloudevents+json" => structured(value, metadata)?,
        other if other.starts_with("application/cloudevents") => {
            return Err(malformed(format!("{other} cannot be read; send application/cloudevents+json or binary mode")));
        }
        _ => {
            for (name, value) in &message.headers {
                if let (Some(name), Some(value)) = (name.strip_prefix("ce_"), value) {
                    metadata.insert(format!("ce_{name}"), String::from_utf8_lossy(value).into_owned());
                }
            }
            Content::Bytes(Cow::Borrowed(value))
        }
    };
    for name in REQUIRED {
        if metadata.get(&format!("ce_{name}")).is_none_or(String::is_empty) {
            return Err(malformed(format!("it has no attribute `{name}`")));
        }
    }
    match metadata.get("ce_specversion").map(String::as_str) {
        Some("1.0") => Ok(content),
        version => Err(malformed(format!("its specversion is {:?}, not \"1.0\"", version.unwrap_or_default()))),
    }
}

fn structured<'a>(value: &[u8], metadata: &mut BTreeMap<String, String>) -> Result<Content<'a>, Cause> {
    let event: Value = serde_json::from_slice(value).map_err(|error| malformed(error.to_string()))?;
    let Value::Object(event) = event else { return Err(malformed("it is not a JSON object".to_owned())) };
    let mut content = None;
    for (name, value) in event {
        match (name.as_str(), value) {
            ("data", value) => content = Some(Content::Parsed(value)),
            ("data_base64", Value::String(text)) => {
                let bytes = BASE64_STANDARD.decode(text).map_err(|error| malformed(format!("data_base64: {error}")))?;
                content = Some(Content::Bytes(Cow::Owned(bytes)));
            }
            (_, Value::String(value)) => drop(metadata.insert(format!("ce_{name}"), value)),
            (_, Value::Number(value)) => drop(metadata.insert(format!("ce_{name}"), value.to_string())),
            (_, Value::Bool(value)) => drop(metadata.insert(format!("ce_{name}"), value.to_string())),
            _ => {}
        }
    }
    content.ok_or_else(|| malformed("it has neither data nor data_base64".to_owned()))
}

fn header<'a>(message: &'a Message, wanted: &str) -> Option<&'a str> {
    let found = message.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted))?;
    std::str::from_utf8(found.1.as_deref()?).ok()
}

fn malformed(detail: String) -> Cause {
    Cause("MALFORMED_CLOUDEVENT", detail)
}
