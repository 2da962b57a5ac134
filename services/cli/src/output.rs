//! Printing: tables for people, canonical JSON for programs.

use std::io::Write as _;

use comfy_table::{ContentArrangement, Table, presets};
use prost::{Message, Name};
use prost_reflect::{DynamicMessage, SerializeOptions};
use serde_json::Value;

use crate::arguments::Format;

/// Where results go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// How results are printed.
    pub(crate) format: Format,
    /// Whether words around results are left out.
    pub(crate) quiet: bool,
}

impl Output {
    /// One result. Tables have no good form for one: people get all fields, indented.
    pub(crate) fn one<M: Message + Name>(self, message: &M) {
        self.value(&json(message));
    }

    /// A list of results: a table, or an array of whole messages.
    pub(crate) fn list(self, messages: &[Value], headers: &[&str], rows: Vec<Vec<String>>) {
        match self.format {
            Format::Table if rows.is_empty() => self.note("nothing yet"),
            Format::Table => line(&table(headers, rows)),
            _ => self.value(&Value::Array(messages.to_vec())),
        }
    }

    /// Any JSON.
    pub(crate) fn value(self, value: &Value) {
        match self.format {
            Format::Json => line(&serde_json::to_string_pretty(value).unwrap_or_default()),
            Format::Table | Format::Yaml => line(indented(value).trim_end()),
        }
    }

    /// Words around a result; on the error stream, so that results can be piped.
    pub(crate) fn note(self, text: &str) {
        if !self.quiet {
            eprintln!("{text}");
        }
    }

    /// Whether results are for people.
    pub(crate) fn for_people(self) -> bool {
        self.format == Format::Table
    }
}

/// A message as protobuf's canonical JSON, default values left out.
pub(crate) fn json<M: Message + Name>(message: &M) -> Value {
    let descriptor =
        tidemill_proto::pool().get_message_by_name(&M::full_name()).expect("the pool holds every message of ours");
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .expect("a message decodes by its own descriptor");
    let options = SerializeOptions::new().skip_default_fields(true);
    // An `Any` of a type that this client does not know has no JSON; the rest of the message still has.
    dynamic
        .serialize_with_options(serde_json::value::Serializer, &options)
        .unwrap_or_else(|error| Value::String(error.to_string()))
}

/// Prints a line of a result.
pub(crate) fn line(text: &str) {
    raw(&format!("{text}\n"));
}

/// Prints text as it is. A reader who has gone away (`| head`) ends the program quietly.
pub(crate) fn raw(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

/// A table without borders.
pub(crate) fn table(headers: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(headers.to_vec());
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.to_string().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// JSON as indented YAML.
fn indented(value: &Value) -> String {
    fn scalar(value: &Value) -> String {
        match value {
            Value::String(text) => {
                let plain = !text.is_empty()
                    && text.starts_with(|c: char| c.is_alphabetic() || c == '/')
                    && text.chars().all(|c| c.is_alphanumeric() || " _-./@+()".contains(c) || c == ':')
                    && !text.contains(": ")
                    && !text.ends_with([':', ' '])
                    && !matches!(text.to_lowercase().as_str(), "true" | "false" | "null" | "yes" | "no" | "on" | "off");
                if plain { text.clone() } else { value.to_string() }
            }
            Value::Array(_) => "[]".to_owned(),
            Value::Object(_) => "{}".to_owned(),
            other => other.to_string(),
        }
    }
    fn walk(value: &Value, indent: usize, out: &mut String) {
        let pad = " ".repeat(indent);
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (key, value) in fields {
                    out.push_str(&format!("{pad}{key}:"));
                    nested(value, indent + 2, out);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for item in items {
                    let mut inner = String::new();
                    walk(item, indent + 2, &mut inner);
                    out.push_str(&format!("{pad}- {}", inner.trim_start()));
                }
            }
            other => out.push_str(&format!("{pad}{}\n", scalar(other))),
        }
    }
    fn nested(value: &Value, indent: usize, out: &mut String) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                out.push('\n');
                walk(value, indent, out);
            }
            Value::Array(items) if !items.is_empty() => {
                out.push('\n');
                walk(value, indent, out);
            }
            other => out.push_str(&format!(" {}\n", scalar(other))),
        }
    }
    let mut out = String::new();
    walk(value, 0, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use prost_reflect::DeserializeOptions;
    use tidemill_proto::pipeline::v1::PipelineRun;
    use tidemill_proto::r#type::v1::State;

    use super::*;

    fn run() -> PipelineRun {
        let (spec, _) = crate::document::pipeline(include_str!("../../../pipelines/demo.yaml")).unwrap();
        let mut run = PipelineRun { name: "pipelines/sotu/runs/1".to_owned(), spec: Some(spec), ..Default::default() };
        run.set_state(State::Running);
        run.findings.push("bits_per_byte 1.9 < 2.1: holds".to_owned());
        run.error = Some(tonic_types::Status { code: 3, message: "no".to_owned(), details: Vec::new() });
        run
    }

    #[test]
    fn json_reads_back_to_the_same_message() {
        let text = serde_json::to_string_pretty(&json(&run())).unwrap();
        assert!(text.contains("\"state\": \"STATE_RUNNING\"") && text.contains("\"learningRate\""), "{text}");
        let descriptor = tidemill_proto::pool().get_message_by_name(&PipelineRun::full_name()).unwrap();
        let mut reader = serde_json::Deserializer::from_str(&text);
        let back =
            DynamicMessage::deserialize_with_options(descriptor, &mut reader, &DeserializeOptions::new()).unwrap();
        assert_eq!(back.transcode_to::<PipelineRun>().unwrap(), run());
    }

    #[test]
    fn what_is_printed_for_people_is_yaml_that_reads_back() {
        let spec = run().spec.unwrap();
        let text = indented(&json(&spec));
        assert_eq!(crate::document::pipeline(&text).unwrap_or_else(|e| panic!("{e:?}\n{text}")).0, spec);
    }

    #[test]
    fn a_table_lines_its_columns_up() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), "2".to_owned()]];
        assert_eq!(table(&["NAME", "N"], rows), "NAME    N\na       1\nlonger  2");
    }
}
