//! What chat templates expect of Python beyond Jinja: methods of str and dict, and json.dumps' spacing.

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Kwargs, ValueKind},
};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter};

/// Methods of Python's str and dict.
pub(super) fn method(_state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let Some(text) = value.as_str() {
        return text_method(text, name, args);
    }
    if value.kind() == ValueKind::Map {
        match (name, args) {
            ("get", [key]) => {
                let found = value.get_item(key)?;
                return Ok(if found.is_undefined() { Value::from(()) } else { found });
            }
            ("get", [key, default]) => {
                let found = value.get_item(key)?;
                return Ok(if found.is_undefined() { default.clone() } else { found });
            }
            ("keys", []) => return Ok(value.try_iter()?.collect()),
            ("values", []) => return value.try_iter()?.map(|key| value.get_item(&key)).collect(),
            ("items", []) => {
                let pair = |key: Value| Ok(Value::from(vec![key.clone(), value.get_item(&key)?]));
                return value.try_iter()?.map(pair).collect();
            }
            _ => {}
        }
    }
    Err(unknown(name, value.kind()))
}

fn text_method(text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let words = args.iter().map(|arg| arg.as_str()).collect::<Option<Vec<&str>>>();
    let Some(words) = words else {
        // Only startswith and endswith take a tuple.
        return match (name, args) {
            ("startswith", [any]) => {
                Ok(any.try_iter()?.any(|word| text.starts_with(word.as_str().unwrap_or("\0"))).into())
            }
            ("endswith", [any]) => Ok(any.try_iter()?.any(|word| text.ends_with(word.as_str().unwrap_or("\0"))).into()),
            ("split", [separator, limit]) => {
                let limit = usize::try_from(limit.clone())?.saturating_add(1);
                Ok(text.splitn(limit, separator.as_str().unwrap_or(" ")).map(Value::from).collect())
            }
            _ => Err(unknown(name, ValueKind::String)),
        };
    };
    let value = match (name, words.as_slice()) {
        ("strip", []) => text.trim().into(),
        ("lstrip", []) => text.trim_start().into(),
        ("rstrip", []) => text.trim_end().into(),
        ("strip", [set]) => text.trim_matches(|c| set.contains(c)).into(),
        ("lstrip", [set]) => text.trim_start_matches(|c| set.contains(c)).into(),
        ("rstrip", [set]) => text.trim_end_matches(|c| set.contains(c)).into(),
        ("startswith", [prefix]) => text.starts_with(prefix).into(),
        ("endswith", [suffix]) => text.ends_with(suffix).into(),
        ("upper", []) => text.to_uppercase().into(),
        ("lower", []) => text.to_lowercase().into(),
        ("capitalize", []) => capitalized(text).into(),
        ("title", []) => text.split(' ').map(capitalized).collect::<Vec<_>>().join(" ").into(),
        ("split", []) => text.split_whitespace().map(Value::from).collect(),
        ("split", [separator]) if !separator.is_empty() => text.split(separator).map(Value::from).collect(),
        ("splitlines", []) => text.lines().map(Value::from).collect(),
        ("replace", [from, to]) => text.replace(from, to).into(),
        ("count", [word]) if !word.is_empty() => text.matches(word).count().into(),
        ("find", [word]) => text.find(word).map_or(-1, |at| text[..at].chars().count() as i64).into(),
        _ => return Err(unknown(name, ValueKind::String)),
    };
    Ok(value)
}

fn capitalized(word: &str) -> String {
    let mut characters = word.chars();
    characters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(characters.as_str().to_lowercase().chars()).collect()
    })
}

fn unknown(name: &str, kind: ValueKind) -> Error {
    Error::new(ErrorKind::UnknownMethod, format!("{kind} has no method {name} with such arguments"))
}

/// What Python can iterate over; unlike here, None is not of it.
pub(super) fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// As Python's `json.dumps(ensure_ascii=False)` writes it.
pub(super) fn to_json(value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let failed = |e: serde_json::Error| Error::new(ErrorKind::BadSerialization, e.to_string());
    let indent: Option<usize> = kwargs.get("indent")?;
    kwargs.assert_all_used()?;
    let mut bytes = Vec::new();
    match indent {
        Some(indent) => {
            let spaces = b" ".repeat(indent.min(16));
            let formatter = PrettyFormatter::with_indent(&spaces);
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter)).map_err(failed)?;
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Spaced)).map_err(failed)?,
    }
    Ok(Value::from_safe_string(String::from_utf8_lossy(&bytes).into_owned()))
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}
