//! Protobuf messages of a type that the source defines.

use prost_reflect::{DescriptorPool, DynamicMessage, Kind, MessageDescriptor, SerializeOptions};
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver};
use protox::{Compiler, Error};
use serde_json::Value;
use tidemill_proto::r#type::v1::KafkaOptions;
use tidemill_proto::r#type::v1::kafka_options::protobuf_schema::Definition;

use super::{Cause, Wrong};

const MALFORMED: &str = "MALFORMED_PROTOBUF";
/// What the text of a definition is called in its errors.
const FILE: &str = "source.proto";

/// A message type.
pub(super) struct Schema(MessageDescriptor);

impl Schema {
    /// Finds the type, and says what is wrong with its definition.
    pub(super) fn new(options: &KafkaOptions, text_path: &[String], wrong: &mut Vec<Wrong>) -> Option<Self> {
        let mut say = |field: &str, text: String| wrong.push((format!(".kafka.protobuf{field}"), text));
        let Some(given) = &options.protobuf else {
            say("", "it is required for RECORD_FORMAT_PROTOBUF".to_owned());
            return None;
        };
        let pool = match &given.definition {
            None => {
                say("", "it needs file_descriptor_set or proto".to_owned());
                return None;
            }
            Some(Definition::FileDescriptorSet(bytes)) => {
                DescriptorPool::decode(bytes.as_slice()).map_err(|error| (".file_descriptor_set", error.to_string()))
            }
            Some(Definition::Proto(text)) => compile(text).map_err(|error| (".proto", error)),
        };
        let pool = match pool {
            Ok(pool) => pool,
            Err((field, text)) => {
                say(field, text);
                return None;
            }
        };
        let Some(message) = pool.get_message_by_name(&given.message) else {
            say(".message", format!("{:?} is not defined there", given.message));
            return None;
        };
        if let Err(text) = holds(&message, text_path) {
            wrong.push((".kafka.text_field".to_owned(), text));
            return None;
        }
        Some(Self(message))
    }

    pub(super) fn read(&self, bytes: &[u8]) -> Result<Value, Cause> {
        let malformed = |error: String| Cause(MALFORMED, error);
        let message = DynamicMessage::decode(self.0.clone(), bytes).map_err(|error| malformed(error.to_string()))?;
        // Names as in the definition; fields without presence are there with their defaults, so that an empty text is told from none.
        let options = SerializeOptions::new().use_proto_field_name(true).skip_default_fields(false);
        message
            .serialize_with_options(serde_json::value::Serializer, &options)
            .map_err(|error| malformed(error.to_string()))
    }
}

/// Whether a text can be where the source says.
fn holds(message: &MessageDescriptor, text_path: &[String]) -> Result<(), String> {
    let mut message = message.clone();
    for (index, name) in text_path.iter().enumerate() {
        let Some(field) = message.get_field_by_name(name) else {
            return Err(format!("{} has no field `{name}`", message.full_name()));
        };
        match field.kind() {
            Kind::Message(inner) if index + 1 < text_path.len() && !field.is_list() => message = inner,
            Kind::String if index + 1 == text_path.len() && !field.is_list() => return Ok(()),
            _ => return Err(format!("field `{name}` of {} is not a string", message.full_name())),
        }
    }
    Err(format!("{} is not a string", text_path.join(".")))
}

fn compile(text: &str) -> Result<DescriptorPool, String> {
    let mut files = ChainFileResolver::new();
    files.add(OneFile(text.to_owned()));
    files.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(files);
    compiler.include_imports(true).open_file(FILE).map_err(|error| error.to_string())?;
    Ok(compiler.descriptor_pool())
}

/// The definition in the source, and nothing else: a definition cannot read files of this machine.
struct OneFile(String);

impl FileResolver for OneFile {
    fn open_file(&self, name: &str) -> Result<File, Error> {
        if name == FILE { File::from_source(name, &self.0) } else { Err(Error::file_not_found(name)) }
    }
}
