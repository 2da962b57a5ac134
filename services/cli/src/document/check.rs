//! A tree of YAML against a message's descriptor: every mistake at once, or the message.

use std::collections::HashMap;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, OneofDescriptor, Value};

use super::node::{Key, Node, Value as Yaml};
use super::{Mistake, Places, scalar};

/// Numbers of google.api.FieldBehavior.
const OPTIONAL: i32 = 1;
const REQUIRED: i32 = 2;
const OUTPUT_ONLY: i32 = 3;
const IDENTIFIER: i32 = 8;

/// The message that holds any one value.
const ANY_VALUE: &str = "google.protobuf.Value";

/// Checks a whole document.
pub(super) fn check(root: &Node, descriptor: &MessageDescriptor) -> Result<(DynamicMessage, Places), Vec<Mistake>> {
    let mut checker = Checker::default();
    let message = checker.message(root, descriptor, "", root.line);
    if checker.mistakes.is_empty() {
        return Ok((message, checker.places));
    }
    checker.mistakes.sort_by_key(|mistake| mistake.line);
    Err(checker.mistakes)
}

#[derive(Default)]
struct Checker {
    mistakes: Vec<Mistake>,
    places: Places,
}

impl Checker {
    fn wrong(&mut self, line: usize, field: &str, text: String) {
        self.mistakes.push(Mistake { line, field: field.to_owned(), text });
    }

    /// `line` is where the message is named: what is missing inside is reported there.
    fn message(&mut self, node: &Node, descriptor: &MessageDescriptor, path: &str, line: usize) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        let none = Vec::new();
        let entries = match &node.value {
            Yaml::Map(entries) => entries,
            // `normalize:` alone asks for the defaults.
            _ if node.is_null() => &none,
            _ => {
                self.wrong(node.line, path, format!("fields should stand here; {}", known(descriptor)));
                return message;
            }
        };

        let mut given: HashMap<String, &Key> = HashMap::new();
        let mut misspelt: Vec<String> = Vec::new();
        let mut chosen: HashMap<String, (String, usize)> = HashMap::new();
        for (key, value) in entries {
            let field = descriptor.fields().find(|f| f.name() == key.text || f.json_name() == key.text);
            if field.as_ref().is_some_and(servers) {
                self.wrong(key.line, &join(path, &key.text), "set by the server; remove the line".to_owned());
                continue;
            }
            let Some(field) = field else {
                let near = near(&key.text, descriptor);
                let hint = near.as_ref().map_or_else(|| known(descriptor), |name| format!("did you mean `{name}`?"));
                self.wrong(key.line, &join(path, &key.text), format!("unknown field; {hint}"));
                misspelt.extend(near);
                continue;
            };
            let inner = join(path, field.name());
            if let Some(before) = given.insert(field.name().to_owned(), key) {
                self.wrong(key.line, &inner, format!("given twice, first in line {}; remove one", before.line));
                continue;
            }
            if let Some(oneof) = choice(&field) {
                let before = chosen.insert(oneof.name().to_owned(), (field.name().to_owned(), key.line));
                if let Some((other, at)) = before {
                    let text = format!(
                        "only one of {} can be given, and line {at} gives {other}; remove one",
                        members(&oneof)
                    );
                    self.wrong(key.line, &inner, text);
                    continue;
                }
            }
            self.places.note(&inner, key.line);
            if let Some(value) = self.field(value, &field, &inner, key.line) {
                message.set_field(&field, value);
            }
        }

        for field in descriptor.fields().filter(required) {
            // One mistake, one line: a misspelt field has been reported.
            if !given.contains_key(field.name()) && !misspelt.iter().any(|name| name == field.name()) {
                let inner = join(path, field.name());
                self.wrong(line, &inner, format!("missing; it is required: {}", meaning(&field)));
            }
        }
        for oneof in descriptor.oneofs().filter(|oneof| !oneof.is_synthetic()) {
            if !chosen.contains_key(oneof.name()) && !oneof.fields().all(|field| behaves(&field, OPTIONAL)) {
                self.wrong(line, path, format!("one of {} must be given", members(&oneof)));
            }
        }
        message
    }

    fn field(&mut self, node: &Node, field: &FieldDescriptor, path: &str, line: usize) -> Option<Value> {
        if field.is_map() {
            return self.map(node, field, path);
        }
        if !field.is_list() {
            return self.value(node, &field.kind(), path, line);
        }
        let Yaml::List(items) = &node.value else {
            self.wrong(node.line, path, "a list should stand here: one `- ` line for each item".to_owned());
            return None;
        };
        if items.is_empty() && required(field) {
            self.wrong(node.line, path, format!("empty; at least one item is required: {}", meaning(field)));
        }
        let mut values = Vec::new();
        for (at, item) in items.iter().enumerate() {
            let inner = format!("{path}[{at}]");
            self.places.note(&inner, item.line);
            values.extend(self.value(item, &field.kind(), &inner, item.line));
        }
        Some(Value::List(values))
    }

    fn map(&mut self, node: &Node, field: &FieldDescriptor, path: &str) -> Option<Value> {
        let (Kind::Message(entry), Yaml::Map(entries)) = (field.kind(), &node.value) else {
            self.wrong(node.line, path, "`key: value` lines should stand here".to_owned());
            return None;
        };
        let kind = entry.map_entry_value_field().kind();
        let mut values = HashMap::new();
        for (key, item) in entries {
            let inner = join(path, &key.text);
            if let Some(value) = self.value(item, &kind, &inner, key.line) {
                values.insert(MapKey::String(key.text.clone()), value);
            }
        }
        Some(Value::Map(values))
    }

    fn value(&mut self, node: &Node, kind: &Kind, path: &str, line: usize) -> Option<Value> {
        if let (Kind::Message(descriptor), Yaml::Scalar { text, quoted }) = (kind, &node.value)
            && descriptor.full_name() == ANY_VALUE
            && !node.is_null()
        {
            return Some(Value::Message(scalar::any(text, *quoted, descriptor)));
        }
        if let Kind::Message(descriptor) = kind
            && descriptor.full_name() != ANY_VALUE
        {
            return Some(Value::Message(self.message(node, descriptor, path, line)));
        }
        let result = match &node.value {
            _ if node.is_null() => Err("empty; write a value, or remove the line to take the default".to_owned()),
            Yaml::Scalar { text, quoted } => scalar::scalar(text, *quoted, kind),
            Yaml::List(_) => Err("a list stands where one value should".to_owned()),
            Yaml::Map(_) => Err("indented fields stand where one value should; check the indentation".to_owned()),
        };
        result.map_err(|text| self.wrong(node.line, path, text)).ok()
    }
}

fn required(field: &FieldDescriptor) -> bool {
    behaves(field, REQUIRED)
}

/// Whether only the server sets a field.
fn servers(field: &FieldDescriptor) -> bool {
    behaves(field, OUTPUT_ONLY) || behaves(field, IDENTIFIER)
}

fn behaves(field: &FieldDescriptor, wanted: i32) -> bool {
    let Some(behavior) = tidemill_proto::pool().get_extension_by_name("google.api.field_behavior") else {
        return false;
    };
    let options = field.options();
    let values = options.get_extension(&behavior);
    values.as_list().is_some_and(|values| values.iter().any(|value| value.as_enum_number() == Some(wanted)))
}

fn choice(field: &FieldDescriptor) -> Option<OneofDescriptor> {
    field.containing_oneof().filter(|oneof| !oneof.is_synthetic())
}

fn members(oneof: &OneofDescriptor) -> String {
    oneof.fields().map(|field| field.name().to_owned()).collect::<Vec<_>>().join(", ")
}

/// The field's comment in the proto file: its first sentence.
fn meaning(field: &FieldDescriptor) -> String {
    let file = field.parent_file();
    let locations = file.file_descriptor_proto().source_code_info.as_ref();
    let comment = locations
        .and_then(|info| info.location.iter().find(|location| location.path == field.path()))
        .and_then(|location| location.leading_comments.as_deref())
        .unwrap_or_default();
    let comment = comment.split_whitespace().collect::<Vec<_>>().join(" ");
    let sentence = comment.split(". ").next().unwrap_or_default().trim_end_matches('.');
    if sentence.is_empty() { "see the API's description".to_owned() } else { sentence.to_owned() }
}

/// The field that was probably meant.
fn near(key: &str, descriptor: &MessageDescriptor) -> Option<String> {
    let lower = key.to_lowercase();
    let distances =
        settable(descriptor).map(|field| (strsim::damerau_levenshtein(&lower, field.name()), field.name().to_owned()));
    distances.filter(|(distance, name)| *distance * 2 <= name.len().max(4)).min().map(|(_, name)| name)
}

fn settable(descriptor: &MessageDescriptor) -> impl Iterator<Item = FieldDescriptor> + '_ {
    descriptor.fields().filter(|field| !servers(field))
}

fn known(descriptor: &MessageDescriptor) -> String {
    let names: Vec<String> = settable(descriptor).map(|field| field.name().to_owned()).collect();
    if names.is_empty() { "nothing can be set here".to_owned() } else { format!("known are {}", names.join(", ")) }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
