//! The fields of a decoded message: one is the text, scalars at the top are metadata.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Cause;

/// Where the text is where the source does not say.
const USUAL: &str = "text";

/// The names on the way to the text.
pub(super) fn path(text_field: &str) -> Vec<String> {
    let field = if text_field.is_empty() { USUAL } else { text_field };
    field.split('.').map(str::to_owned).collect()
}

/// Takes the text; other strings, numbers and truth values at the top go to the metadata.
pub(super) fn take(value: Value, path: &[String], metadata: &mut BTreeMap<String, String>) -> Result<String, Cause> {
    let Value::Object(object) = value else {
        return Err(Cause("NOT_AN_OBJECT", "the message is not an object with fields".to_owned()));
    };
    let (first, rest) = path.split_first().expect("a path has at least one name");
    let mut text = None;
    for (key, value) in object {
        if key == *first {
            text = inside(value, rest);
            continue;
        }
        match value {
            Value::String(value) => drop(metadata.insert(key, value)),
            Value::Number(value) => drop(metadata.insert(key, value.to_string())),
            Value::Bool(value) => drop(metadata.insert(key, value.to_string())),
            Value::Null | Value::Array(_) | Value::Object(_) => {}
        }
    }
    text.ok_or_else(|| Cause("MISSING_TEXT", format!("it has no string field `{}`", path.join("."))))
}

fn inside(value: Value, path: &[String]) -> Option<String> {
    match (value, path.split_first()) {
        (Value::String(text), None) => Some(text),
        (Value::Object(mut object), Some((name, rest))) => inside(object.remove(name)?, rest),
        _ => None,
    }
}
