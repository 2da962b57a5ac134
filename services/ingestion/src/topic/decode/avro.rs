//! Avro data, bare or behind a header that names the schema.

use std::collections::HashMap;

use apache_avro::rabin::Rabin;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::Schema;
use serde_json::Value;
use tidemill_proto::r#type::v1::KafkaOptions;
use tidemill_proto::r#type::v1::kafka_options::AvroFraming;

use super::{Cause, Wrong};

const MALFORMED: &str = "MALFORMED_AVRO";

/// The schemas of a source, by what messages call them.
pub(super) struct Schemas {
    framing: AvroFraming,
    by_key: HashMap<u64, Schema>,
}

impl Schemas {
    /// Reads the schemas, and says what is wrong with them.
    pub(super) fn new(options: &KafkaOptions, text_path: &[String], wrong: &mut Vec<Wrong>) -> Option<Self> {
        let before = wrong.len();
        let mut say = |field: String, text: String| wrong.push((format!(".kafka.{field}"), text));
        let Ok(framing) = AvroFraming::try_from(options.avro_framing) else {
            say("avro_framing".to_owned(), format!("{} is not a framing", options.avro_framing));
            return None;
        };
        match (options.avro_schemas.len(), framing) {
            (0, _) => say("avro_schemas".to_owned(), "it is required for RECORD_FORMAT_AVRO".to_owned()),
            (1, _) | (_, AvroFraming::SingleObject | AvroFraming::Confluent) => {}
            (count, AvroFraming::Unspecified) => {
                let text =
                    format!("bare messages do not say which of {count} schemas wrote them: give one, or avro_framing");
                say("avro_schemas".to_owned(), text);
            }
        }
        let mut by_key = HashMap::new();
        for (index, given) in options.avro_schemas.iter().enumerate() {
            let field = format!("avro_schemas[{index}].schema");
            let schema = match Schema::parse_str(&given.schema) {
                Ok(schema) => schema,
                Err(error) => {
                    say(field, error.to_string());
                    continue;
                }
            };
            if let Err(reason) = holds(&schema, text_path) {
                say(field, reason);
            }
            let key = match framing {
                AvroFraming::Unspecified => 0,
                AvroFraming::SingleObject => fingerprint(&schema),
                AvroFraming::Confluent => u64::from(given.id.cast_unsigned()),
            };
            if by_key.insert(key, schema).is_some() {
                say(format!("avro_schemas[{index}]"), "it is given twice, or its id is".to_owned());
            }
        }
        (wrong.len() == before).then_some(Self { framing, by_key })
    }

    /// Readers of every schema.
    pub(super) fn readers(&self) -> Readers<'_> {
        let readers = self.by_key.iter().map(|(key, schema)| {
            let reader = GenericDatumReader::builder(schema).build().map_err(|error| error.to_string());
            (*key, reader.map(|reader| (reader, schema)))
        });
        Readers { framing: self.framing, by_key: readers.collect() }
    }
}

/// Reads data; see [`Schemas::readers`].
pub(super) struct Readers<'a> {
    framing: AvroFraming,
    by_key: HashMap<u64, Result<(GenericDatumReader<'a>, &'a Schema), String>>,
}

impl Readers<'_> {
    pub(super) fn read(&self, bytes: &[u8]) -> Result<Value, Cause> {
        let (key, mut datum) = self.unframe(bytes)?;
        let reader = self.by_key.get(&key).ok_or_else(|| {
            let name = match self.framing {
                AvroFraming::SingleObject => format!("of fingerprint {:016x}", key.swap_bytes()),
                _ => format!("of id {key}"),
            };
            Cause("UNKNOWN_SCHEMA", format!("kafka.avro_schemas has none {name}; add it to a new source"))
        })?;
        let (reader, schema) = reader.as_ref().map_err(|error| Cause(MALFORMED, error.clone()))?;
        let value = reader.read_value(&mut datum).map_err(|error| Cause(MALFORMED, error.to_string()))?;
        if !datum.is_empty() {
            return Err(Cause(MALFORMED, format!("{} bytes are left over behind the datum", datum.len())));
        }
        // A string that is cut off comes as null.
        if !value.validate(schema) {
            return Err(Cause(MALFORMED, "it ends in the middle of a field".to_owned()));
        }
        Value::try_from(value).map_err(|error| Cause(MALFORMED, error.to_string()))
    }

    /// The schema's key and the datum.
    fn unframe<'b>(&self, bytes: &'b [u8]) -> Result<(u64, &'b [u8]), Cause> {
        let unframed = match self.framing {
            AvroFraming::Unspecified => return Ok((0, bytes)),
            AvroFraming::SingleObject => bytes
                .strip_prefix(&[0xC3, 0x01])
                .and_then(|rest| rest.split_first_chunk())
                .map(|(fingerprint, datum)| (u64::from_le_bytes(*fingerprint), datum)),
            AvroFraming::Confluent => bytes
                .strip_prefix(&[0])
                .and_then(|rest| rest.split_first_chunk())
                .map(|(id, datum)| (u64::from(u32::from_be_bytes(*id)), datum)),
        };
        unframed.ok_or_else(|| {
            let expected =
                if self.framing == AvroFraming::Confluent { "00 and a schema id" } else { "c3 01 and a fingerprint" };
            Cause(MALFORMED, format!("it does not begin with {expected}"))
        })
    }
}

/// CRC-64-AVRO of the schema's canonical form, as single-object encoding carries it.
fn fingerprint(schema: &Schema) -> u64 {
    let bytes = schema.fingerprint::<Rabin>().bytes;
    bytes.try_into().map_or(0, u64::from_le_bytes)
}

/// Whether a text can be where the source says.
fn holds(schema: &Schema, text_path: &[String]) -> Result<(), String> {
    let Schema::Record(record) = schema else { return Err("it should be a record".to_owned()) };
    let first = text_path.first().map_or("", String::as_str);
    if record.fields.iter().any(|field| field.name == first) {
        return Ok(());
    }
    Err(format!("record {} has no field `{first}`; name the one with the text in kafka.text_field", record.name))
}
