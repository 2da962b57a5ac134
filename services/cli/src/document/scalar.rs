//! One scalar by its protobuf type.

use prost_reflect::{DynamicMessage, EnumDescriptor, Kind, MessageDescriptor, Value};

/// Reads a scalar, or says what should stand there.
pub(super) fn scalar(text: &str, quoted: bool, kind: &Kind) -> Result<Value, String> {
    let number = |what: &str| {
        let quotes = if quoted { "; remove the quotes" } else { "" };
        format!("{} is not {what}{quotes}", shown(text))
    };
    let bare = if quoted { "" } else { text };
    match kind {
        Kind::String => Ok(Value::String(text.to_owned())),
        Kind::Bytes => Ok(Value::Bytes(text.as_bytes().to_vec().into())),
        Kind::Bool => match bare {
            "true" | "True" | "TRUE" => Ok(Value::Bool(true)),
            "false" | "False" | "FALSE" => Ok(Value::Bool(false)),
            _ => Err(format!("{} is not true or false", shown(text))),
        },
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            bare.parse().map(Value::I32).map_err(|_| number("a whole number from -2147483648 to 2147483647"))
        }
        // The API's JSON writes 64-bit numbers in quotes.
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            text.parse().map(Value::I64).map_err(|_| number("a whole number"))
        }
        Kind::Uint32 | Kind::Fixed32 => {
            bare.parse().map(Value::U32).map_err(|_| number("a whole number from 0 to 4294967295"))
        }
        Kind::Uint64 | Kind::Fixed64 => {
            text.parse().map(Value::U64).map_err(|_| number("a whole number of at least 0"))
        }
        Kind::Float | Kind::Double => match bare.parse::<f64>() {
            Ok(value) if value.is_finite() && matches!(kind, Kind::Double) => Ok(Value::F64(value)),
            // Fields of type float are rare; the narrowing is the field's own.
            Ok(value) if value.is_finite() => Ok(Value::F32(value as f32)),
            _ => Err(number("a number")),
        },
        Kind::Enum(descriptor) => enumeration(text, descriptor),
        Kind::Message(_) => Err(format!("{} stands where indented fields should", shown(text))),
    }
}

/// A scalar of any type, as YAML reads it: true and false, a number, else a text.
pub(super) fn any(text: &str, quoted: bool, descriptor: &MessageDescriptor) -> DynamicMessage {
    let bare = if quoted { "" } else { text };
    let (field, value) = match (scalar(bare, false, &Kind::Bool), bare.parse::<f64>()) {
        (Ok(value), _) => ("bool_value", value),
        (_, Ok(number)) if number.is_finite() => ("number_value", Value::F64(number)),
        _ => ("string_value", Value::String(text.to_owned())),
    };
    let mut message = DynamicMessage::new(descriptor.clone());
    message.set_field_by_name(field, value);
    message
}

/// Accepts `RECORD_FORMAT_TEXT` and `text`, in any case.
fn enumeration(text: &str, descriptor: &EnumDescriptor) -> Result<Value, String> {
    let prefix = screaming(descriptor.name());
    let names: Vec<(String, i32)> = descriptor
        .values()
        .filter(|value| value.number() != 0)
        .map(|value| (value.name().strip_prefix(&prefix).unwrap_or(value.name()).to_lowercase(), value.number()))
        .collect();
    let wanted = text.to_uppercase().replace('-', "_");
    let wanted = wanted.strip_prefix(&prefix).unwrap_or(&wanted).to_lowercase();
    if let Some((_, number)) = names.iter().find(|(name, _)| *name == wanted) {
        return Ok(Value::EnumNumber(*number));
    }
    let names: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
    Err(format!("{} is none of {}", shown(text), names.join(", ")))
}

/// `RecordFormat` as the prefix of its values: `RECORD_FORMAT_`.
fn screaming(name: &str) -> String {
    let mut prefix = String::new();
    for (at, letter) in name.char_indices() {
        if at > 0 && letter.is_uppercase() {
            prefix.push('_');
        }
        prefix.extend(letter.to_uppercase());
    }
    prefix.push('_');
    prefix
}

/// A value in quotes, shortened.
fn shown(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    if short.len() < text.len() { format!("{short:?}...") } else { format!("{short:?}") }
}
