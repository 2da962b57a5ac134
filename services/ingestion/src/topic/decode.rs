//! One message of a topic into a record, or into a refusal that says what is wrong with it. Pure, and checked when the source is
//! created: a decoder that was made once can be made again.

mod avro;
mod cloudevents;
mod fields;
mod protobuf;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;
use tidemill_eventlog::reader::Message;
use tidemill_proto::r#type::v1::kafka_options::Envelope;
use tidemill_proto::r#type::v1::{KafkaOptions, RecordFormat, SourceSpec};

use super::origin::Origin;
use crate::records::{Outcome, keep, refuse, row_record, text_of};
use crate::runner::max_record_bytes;

/// A wrong field below `spec`, and what is wrong with it.
pub(crate) type Wrong = (String, String);

/// How the messages of one source become records.
pub(crate) struct Decoder {
    format: Format,
    text_path: Vec<String>,
    envelope: Envelope,
    max_bytes: u64,
}

enum Format {
    Text,
    Json,
    Rows,
    Avro(avro::Schemas),
    Protobuf(protobuf::Schema),
}

/// What is wrong with a message, as CODE and in words.
#[derive(Debug)]
struct Cause(&'static str, String);

/// A message's content: its bytes, or what an envelope in JSON holds already parsed.
enum Content<'a> {
    Bytes(Cow<'a, [u8]>),
    Parsed(Value),
}

impl Decoder {
    /// The decoder of a source; an error names every wrong field.
    pub(crate) fn new(spec: &SourceSpec) -> Result<Self, Vec<Wrong>> {
        let usual = KafkaOptions::default();
        let options = spec.kafka.as_ref().unwrap_or(&usual);
        let mut wrong: Vec<Wrong> = Vec::new();
        let envelope = Envelope::try_from(options.envelope).unwrap_or_else(|_| {
            wrong.push((".kafka.envelope".to_owned(), format!("{} is not an envelope", options.envelope)));
            Envelope::Unspecified
        });
        let text_path = fields::path(&options.text_field);
        if text_path.iter().any(String::is_empty) {
            let text = format!("{:?} should be field names with dots between them", options.text_field);
            wrong.push((".kafka.text_field".to_owned(), text));
        }
        let format = match spec.format() {
            format @ (RecordFormat::Text | RecordFormat::Rows) => {
                if !options.text_field.is_empty() {
                    let text = format!("{} has no field of text: leave it empty", format.as_str_name());
                    wrong.push((".kafka.text_field".to_owned(), text));
                }
                Some(if format == RecordFormat::Text { Format::Text } else { Format::Rows })
            }
            RecordFormat::Json => Some(Format::Json),
            RecordFormat::Avro => avro::Schemas::new(options, &text_path, &mut wrong).map(Format::Avro),
            RecordFormat::Protobuf => protobuf::Schema::new(options, &text_path, &mut wrong).map(Format::Protobuf),
            RecordFormat::Jsonl | RecordFormat::Unspecified => {
                let text = "it should be RECORD_FORMAT_TEXT, _JSON, _ROWS, _AVRO or _PROTOBUF for a topic".to_owned();
                wrong.push((".format".to_owned(), text));
                None
            }
        };
        if spec.format() != RecordFormat::Avro && !options.avro_schemas.is_empty() {
            wrong.push((".kafka.avro_schemas".to_owned(), "they are only for RECORD_FORMAT_AVRO".to_owned()));
        }
        if spec.format() != RecordFormat::Protobuf && options.protobuf.is_some() {
            wrong.push((".kafka.protobuf".to_owned(), "it is only for RECORD_FORMAT_PROTOBUF".to_owned()));
        }
        match format {
            Some(format) if wrong.is_empty() => {
                Ok(Self { format, text_path, envelope, max_bytes: max_record_bytes(spec) })
            }
            _ => Err(wrong),
        }
    }

    /// What decodes a run of messages; made once for many, because Avro resolves its schemas anew.
    pub(crate) fn session(&self) -> Session<'_> {
        let avro = match &self.format {
            Format::Avro(schemas) => Some(schemas.readers()),
            _ => None,
        };
        Session { decoder: self, avro }
    }
}

/// See [`Decoder::session`].
pub(crate) struct Session<'a> {
    decoder: &'a Decoder,
    avro: Option<avro::Readers<'a>>,
}

impl Session<'_> {
    /// The record of a message. A message without a value is refused as TOMBSTONE: it deletes, and tells nothing.
    pub(crate) fn decode(&self, origin: &Origin<'_>, message: &Message) -> Outcome {
        let origin = origin.to_string();
        let Some(value) = &message.value else {
            return Err(refuse(&origin, "TOMBSTONE", "the message has no value", &[], 0));
        };
        let size = value.len() as u64;
        if size > self.decoder.max_bytes {
            let most = self.decoder.max_bytes;
            let detail = format!("{size} bytes are more than the {most} allowed by max_record_bytes");
            return Err(refuse(&origin, "RECORD_TOO_LARGE", detail, value, size));
        }
        let refused = |Cause(reason, detail)| refuse(&origin, reason, detail, value, size);
        let mut metadata = BTreeMap::new();
        let content = match self.decoder.envelope {
            Envelope::Unspecified => Content::Bytes(Cow::Borrowed(value)),
            Envelope::Cloudevents => cloudevents::open(message, value, &mut metadata).map_err(refused)?,
        };
        let parsed = match (content, &self.decoder.format) {
            (Content::Bytes(bytes), Format::Text) => {
                return keep(&origin, text_of(&origin, &bytes)?.to_owned(), metadata);
            }
            (Content::Parsed(Value::String(text)), Format::Text) => return keep(&origin, text, metadata),
            (Content::Bytes(bytes), Format::Json | Format::Rows) => {
                let text = text_of(&origin, &bytes)?;
                serde_json::from_str(text).map_err(|error| Cause("MALFORMED_JSON", error.to_string()))
            }
            (Content::Parsed(value), Format::Json | Format::Rows) => Ok(value),
            (Content::Bytes(bytes), Format::Avro(_)) => {
                self.avro.as_ref().expect("a session of Avro has readers").read(&bytes)
            }
            (Content::Bytes(bytes), Format::Protobuf(schema)) => schema.read(&bytes),
            (Content::Parsed(_), _) => {
                let detail = "the event's data should be a string of text, or bytes in data_base64".to_owned();
                Err(Cause("MALFORMED_CLOUDEVENT", detail))
            }
        };
        if matches!(self.decoder.format, Format::Rows) {
            let row = parsed.map_err(refused)?;
            return row_record(&origin, &row, metadata).map_err(|detail| refused(Cause("MALFORMED_ROW", detail)));
        }
        let text = parsed.and_then(|value| fields::take(value, &self.decoder.text_path, &mut metadata));
        keep(&origin, text.map_err(refused)?, metadata)
    }
}

#[cfg(test)]
mod tests;
