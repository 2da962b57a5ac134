//! Fields of a job by their paths, as files write them: `spec.optimizer.learning_rate`, `mixed_datasets[0].weight`.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value};
use prost_types::value::Kind as Given;

/// Number of `OUTPUT_ONLY` in google.api.FieldBehavior.
const OUTPUT_ONLY: i32 = 3;
/// Number of `IDENTIFIER`.
const IDENTIFIER: i32 = 8;

/// A field that holds one value, and the way to it from a message.
#[derive(Clone, Debug)]
pub(super) struct Field(Vec<Part>);

#[derive(Clone, Debug)]
struct Part {
    field: FieldDescriptor,
    /// Which item, where the field is a list.
    index: Option<usize>,
}

impl Field {
    /// Follows a path through a message, which must hold everything on the way: what else stands beside the field is for it to say.
    ///
    /// # Errors
    /// What is wrong with the path.
    pub(super) fn find(message: &DynamicMessage, path: &str) -> Result<Self, String> {
        if path.is_empty() {
            return Err("is required: the path of a field of training_job".to_owned());
        }
        let mut message = message.clone();
        let mut parts: Vec<Part> = Vec::new();
        let segments: Vec<&str> = path.split('.').collect();
        for (at, segment) in segments.iter().enumerate() {
            let here = segments[..=at].join(".");
            let (name, index) = split(segment).ok_or_else(|| format!("{segment:?} is not a field's name"))?;
            let descriptor = message.descriptor();
            let field = descriptor.get_field_by_name(name).filter(settable);
            let field = field.ok_or_else(|| format!("{here} is unknown; {}", known(&descriptor)))?;
            let value = message.get_field(&field).into_owned();
            let value = match (field.is_list() || field.is_map(), index) {
                (false, None) => value,
                (false, Some(_)) => return Err(format!("{here}: {name} is not a list; leave the number out")),
                (true, None) => return Err(format!("{here} holds many values; name one of a list: {name}[0]")),
                (true, Some(index)) => {
                    let item = value.as_list().and_then(|items| items.get(index)).cloned();
                    item.ok_or_else(|| format!("training_job has no {here}; write it there"))?
                }
            };
            let given = index.is_some() || message.has_field(&field);
            parts.push(Part { field: field.clone(), index });
            match (field.kind(), at + 1 == segments.len()) {
                (Kind::Message(inner), true) => return Err(format!("{here} is no value; {}", known(&inner))),
                (Kind::Message(_), false) if !given => {
                    return Err(format!("training_job has no {here}; write it there, with what else it needs"));
                }
                (Kind::Message(_), false) => {
                    message = value.as_message().cloned().ok_or_else(|| format!("{here} has no fields"))?;
                }
                (_, true) => return Ok(Self(parts)),
                (_, false) => return Err(format!("{here} is a value, and has no fields")),
            }
        }
        Err(format!("{path} names no value"))
    }

    /// The type of its values.
    pub(super) fn kind(&self) -> Kind {
        self.0.last().expect("a path has a part").field.kind()
    }

    /// Puts a value into a message that holds the way to it.
    pub(super) fn set(&self, message: &mut DynamicMessage, value: Value) {
        set(message, &self.0, value);
    }
}

fn set(message: &mut DynamicMessage, parts: &[Part], value: Value) {
    let Some((part, rest)) = parts.split_first() else { return };
    if rest.is_empty() && part.index.is_none() {
        return message.set_field(&part.field, value);
    }
    let place = message.get_field_mut(&part.field);
    let place = match part.index {
        None => Some(place),
        Some(index) => place.as_list_mut().and_then(|items| items.get_mut(index)),
    };
    match place {
        Some(place) if rest.is_empty() => *place = value,
        Some(Value::Message(inner)) => set(inner, rest, value),
        // `find` has been there.
        _ => {}
    }
}

/// `weights[2]` is `weights` and 2.
fn split(segment: &str) -> Option<(&str, Option<usize>)> {
    match segment.split_once('[') {
        None => Some((segment, None)),
        Some((name, rest)) => Some((name, Some(rest.strip_suffix(']')?.parse().ok()?))),
    }
}

fn settable(field: &FieldDescriptor) -> bool {
    let behavior = tidemill_proto::pool().get_extension_by_name("google.api.field_behavior");
    let behavior = behavior.expect("the pool holds what our files import");
    let options = field.options();
    let values = options.get_extension(&behavior);
    let ours = |value: &Value| matches!(value.as_enum_number(), Some(OUTPUT_ONLY | IDENTIFIER));
    !values.as_list().is_some_and(|values| values.iter().any(ours))
}

fn known(descriptor: &MessageDescriptor) -> String {
    let names: Vec<String> = descriptor.fields().filter(settable).map(|field| field.name().to_owned()).collect();
    format!("known here are {}", names.join(", "))
}

/// A value as a field of a kind holds it.
///
/// # Errors
/// What should stand there.
pub(super) fn typed(kind: &Kind, value: &prost_types::Value) -> Result<Value, String> {
    let wrong = |what: &str| Err(format!("{} is not {what}", shown(value)));
    let whole = |low: f64, high: f64| match value.kind {
        Some(Given::NumberValue(number)) if number.fract() == 0.0 && (low..=high).contains(&number) => Some(number),
        _ => None,
    };
    // Beyond 2^53 a double holds not every whole number.
    const LARGEST: f64 = 9_007_199_254_740_992.0;
    let whole_or = |low: f64, high: f64, of: fn(f64) -> Value| match whole(low, high) {
        Some(number) => Ok(of(number)),
        None => wrong(&format!("a whole number from {low} to {high}")),
    };
    match (kind, &value.kind) {
        (Kind::Double, Some(Given::NumberValue(number))) if number.is_finite() => Ok(Value::F64(*number)),
        (Kind::Float, Some(Given::NumberValue(number))) if number.is_finite() => Ok(Value::F32(*number as f32)),
        (Kind::Double | Kind::Float, _) => wrong("a number"),
        (Kind::Int32 | Kind::Sint32 | Kind::Sfixed32, _) => {
            whole_or(i32::MIN.into(), i32::MAX.into(), |number| Value::I32(number as i32))
        }
        (Kind::Uint32 | Kind::Fixed32, _) => whole_or(0.0, u32::MAX.into(), |number| Value::U32(number as u32)),
        (Kind::Int64 | Kind::Sint64 | Kind::Sfixed64, _) => {
            whole_or(-LARGEST, LARGEST, |number| Value::I64(number as i64))
        }
        (Kind::Uint64 | Kind::Fixed64, _) => whole_or(0.0, LARGEST, |number| Value::U64(number as u64)),
        (Kind::Bool, Some(Given::BoolValue(given))) => Ok(Value::Bool(*given)),
        (Kind::Bool, _) => wrong("true or false"),
        (Kind::String, Some(Given::StringValue(text))) => Ok(Value::String(text.clone())),
        (Kind::String, _) => wrong("a text"),
        (Kind::Enum(of), Some(Given::StringValue(text))) => {
            let prefix = screaming(of.name());
            let bare = |name: &str| name.strip_prefix(&prefix).unwrap_or(name).to_owned();
            let wanted = bare(&text.to_uppercase());
            let names: Vec<(String, i32)> = of.values().map(|value| (bare(value.name()), value.number())).collect();
            let names = names.into_iter().filter(|(_, number)| *number != 0);
            match names.clone().find(|(name, _)| *name == wanted) {
                Some((_, number)) => Ok(Value::EnumNumber(number)),
                None => wrong(&format!("one of {}", names.map(|(name, _)| name).collect::<Vec<_>>().join(", "))),
            }
        }
        (Kind::Enum(_), _) => wrong("a word"),
        (Kind::Bytes | Kind::Message(_), _) => Err("cannot be searched over".to_owned()),
    }
}

/// `DecayKind` as the prefix of its values: `DECAY_KIND_`.
fn screaming(name: &str) -> String {
    let mut prefix = String::new();
    for (at, letter) in name.char_indices() {
        if at > 0 && letter.is_uppercase() {
            prefix.push('_');
        }
        prefix.extend(letter.to_uppercase());
    }
    prefix + "_"
}

/// A value as people write it.
pub(super) fn shown(value: &prost_types::Value) -> String {
    match &value.kind {
        Some(Given::NumberValue(number)) => number.to_string(),
        Some(Given::StringValue(text)) => format!("{text:?}"),
        Some(Given::BoolValue(given)) => given.to_string(),
        Some(Given::NullValue(_)) | None => "nothing".to_owned(),
        Some(Given::StructValue(_) | Given::ListValue(_)) => "a group of values".to_owned(),
    }
}
