use apache_avro::rabin::Rabin;
use apache_avro::schema::Schema;
use apache_avro::types::Record as AvroRecord;
use apache_avro::writer::datum::GenericDatumWriter;
use tidemill_dataset::{Quarantined, Record};
use tidemill_proto::r#type::v1::kafka_options::protobuf_schema::Definition;
use tidemill_proto::r#type::v1::kafka_options::{AvroFraming, AvroSchema, ProtobufSchema};

use super::*;

const AVRO: &str = r#"{"type": "record", "name": "Document", "fields": [
    {"name": "year", "type": "int"}, {"name": "text", "type": "string"}]}"#;
const PROTO: &str = r#"syntax = "proto3"; package acme.v1; import "google/protobuf/timestamp.proto";
    message Document { message Body { string text = 1; } Body body = 1; int64 year = 2; bool draft = 3; google.protobuf.Timestamp time = 4; }"#;

fn spec(format: RecordFormat, kafka: KafkaOptions) -> SourceSpec {
    SourceSpec { format: format.into(), kafka: Some(kafka), max_record_bytes: 200, ..SourceSpec::default() }
}

fn message(value: &[u8], headers: &[(&str, &str)]) -> Message {
    let headers = headers.iter().map(|(key, value)| ((*key).to_owned(), Some(value.as_bytes().to_vec()))).collect();
    Message { offset: 7, value: Some(value.to_vec()), headers, ..Message::default() }
}

fn decode(spec: &SourceSpec, message: &Message) -> Outcome {
    let decoder = Decoder::new(spec).unwrap();
    decoder.session().decode(&Origin { topic: "docs", partition: 3, offset: message.offset }, message)
}

fn kept(spec: &SourceSpec, value: &[u8]) -> Record {
    decode(spec, &message(value, &[])).unwrap()
}

fn refused(spec: &SourceSpec, value: &[u8]) -> Quarantined {
    decode(spec, &message(value, &[])).unwrap_err()
}

fn wrong(spec: &SourceSpec) -> Vec<String> {
    Decoder::new(spec).err().unwrap_or_default().into_iter().map(|(field, _)| field).collect()
}

#[test]
fn text_is_taken_as_it_is() {
    let spec = spec(RecordFormat::Text, KafkaOptions::default());
    let record = kept(&spec, "Größe".as_bytes());
    assert_eq!((record.text.as_str(), record.origin.as_str()), ("Größe", "docs:3:7"));
    for (value, reason) in [(&b"\xff\xfe"[..], "INVALID_UTF8"), (b"a\0b", "BINARY"), (b" \n", "EMPTY"), (b"", "EMPTY")]
    {
        assert_eq!(refused(&spec, value).reason, reason);
    }
    let large = refused(&spec, &[b'a'; 201]);
    assert_eq!((large.reason.as_str(), large.size), ("RECORD_TOO_LARGE", 201));
    let tombstone = Message { offset: 7, ..Message::default() };
    assert_eq!(decode(&spec, &tombstone).unwrap_err().reason, "TOMBSTONE");
}

#[test]
fn json_gives_its_text_and_its_scalars() {
    let plain = spec(RecordFormat::Json, KafkaOptions::default());
    let record =
        kept(&plain, br#"{"id": 7, "text": "A text.", "draft": true, "lang": "en", "tags": ["x"], "none": null}"#);
    assert_eq!(record.text, "A text.");
    let expected = [("draft", "true"), ("id", "7"), ("lang", "en")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(record.metadata, BTreeMap::from(expected));

    let nested =
        spec(RecordFormat::Json, KafkaOptions { text_field: "document.body".to_owned(), ..Default::default() });
    assert_eq!(kept(&nested, br#"{"document": {"body": "Inside."}, "text": "beside"}"#).text, "Inside.");
    for (value, reason) in [
        (&br#"{"text": "cut"#[..], "MALFORMED_JSON"),
        (br#"{"text": 7}"#, "MISSING_TEXT"),
        (br#"{"body": "x"}"#, "MISSING_TEXT"),
        (br#"{"text": "a"} {"text": "b"}"#, "MALFORMED_JSON"),
        (br#"["text"]"#, "NOT_AN_OBJECT"),
        (b"{\"text\": \"\xff\"}", "INVALID_UTF8"),
        (br#"{"text": " "}"#, "EMPTY"),
    ] {
        assert_eq!(refused(&plain, value).reason, reason);
    }
}

#[test]
fn a_message_can_be_a_row() {
    let rows = spec(RecordFormat::Rows, KafkaOptions::default());
    let record = kept(&rows, br#"{"completion": "c", "prompt": "p", "lang": "en"}"#);
    assert_eq!(record.text, r#"{"prompt":"p","completion":"c"}"#);
    assert_eq!((record.metadata["row_type"].as_str(), record.metadata["lang"].as_str()), ("prompt-completion", "en"));
    for (value, reason) in
        [(&b"{"[..], "MALFORMED_JSON"), (b"7", "MALFORMED_ROW"), (br#"{"prompt": ""}"#, "MALFORMED_ROW")]
    {
        assert_eq!(refused(&rows, value).reason, reason);
    }
    let events =
        spec(RecordFormat::Rows, KafkaOptions { envelope: Envelope::Cloudevents.into(), ..Default::default() });
    let event = br#"{"specversion": "1.0", "id": "1", "source": "/s", "type": "row", "data": {"prompt": "p", "completion": "c"}}"#;
    let structured = [("content-type", "application/cloudevents+json")];
    assert_eq!(decode(&events, &message(event, &structured)).unwrap().metadata["ce_type"], "row");
    let field = KafkaOptions { text_field: "a".into(), ..KafkaOptions::default() };
    assert_eq!(wrong(&spec(RecordFormat::Rows, field)), [".kafka.text_field"]);
}

fn datum(text: &str) -> Vec<u8> {
    let schema = Schema::parse_str(AVRO).unwrap();
    let mut record = AvroRecord::new(&schema).unwrap();
    record.put("year", 1790);
    record.put("text", text);
    GenericDatumWriter::builder(&schema).build().unwrap().write_value_to_vec(record).unwrap()
}

fn avro(framing: AvroFraming) -> SourceSpec {
    let schema = AvroSchema { schema: AVRO.to_owned(), id: 42 };
    let options = KafkaOptions { avro_framing: framing.into(), avro_schemas: vec![schema], ..KafkaOptions::default() };
    spec(RecordFormat::Avro, options)
}

#[test]
fn avro_is_read_bare_or_by_the_schema_that_it_names() {
    let fingerprint = Schema::parse_str(AVRO).unwrap().fingerprint::<Rabin>().bytes;
    let single = [&[0xC3, 0x01], fingerprint.as_slice(), &datum("A text.")].concat();
    let confluent = [&[0, 0, 0, 0, 42], datum("A text.").as_slice()].concat();
    for (framing, value) in [
        (AvroFraming::Unspecified, datum("A text.")),
        (AvroFraming::SingleObject, single.clone()),
        (AvroFraming::Confluent, confluent.clone()),
    ] {
        let record = kept(&avro(framing), &value);
        assert_eq!((record.text.as_str(), record.metadata["year"].as_str()), ("A text.", "1790"), "{framing:?}");
    }
    let changed = |bytes: &[u8], at: usize| {
        let mut bytes = bytes.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let longer = [datum("A text.").as_slice(), b"x"].concat();
    for (framing, value, reason) in [
        (AvroFraming::Unspecified, longer, "MALFORMED_AVRO"),
        (AvroFraming::Unspecified, datum("A text.")[..5].to_vec(), "MALFORMED_AVRO"),
        (AvroFraming::Unspecified, vec![2, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F], "MALFORMED_AVRO"),
        (AvroFraming::Unspecified, datum(" "), "EMPTY"),
        (AvroFraming::SingleObject, changed(&single, 0), "MALFORMED_AVRO"),
        (AvroFraming::SingleObject, changed(&single, 5), "UNKNOWN_SCHEMA"),
        (AvroFraming::SingleObject, vec![0xC3, 0x01, 1], "MALFORMED_AVRO"),
        (AvroFraming::Confluent, changed(&confluent, 0), "MALFORMED_AVRO"),
        (AvroFraming::Confluent, changed(&confluent, 4), "UNKNOWN_SCHEMA"),
    ] {
        assert_eq!(refused(&avro(framing), &value).reason, reason, "{framing:?}");
    }
}

fn protobuf(definition: Definition) -> SourceSpec {
    let protobuf = ProtobufSchema { message: "acme.v1.Document".to_owned(), definition: Some(definition) };
    let options =
        KafkaOptions { text_field: "body.text".to_owned(), protobuf: Some(protobuf), ..KafkaOptions::default() };
    spec(RecordFormat::Protobuf, options)
}

#[test]
fn protobuf_is_read_by_text_or_descriptors() {
    // body { text: "A text." } year: 1790
    let value = [b"\x0a\x09\x0a\x07A text.".as_slice(), b"\x10\xfe\x0d"].concat();
    let set = protox::Compiler::with_file_resolver(OneFile)
        .include_imports(true)
        .open_file("d.proto")
        .unwrap()
        .encode_file_descriptor_set();
    for definition in [Definition::Proto(PROTO.to_owned()), Definition::FileDescriptorSet(set)] {
        let record = kept(&protobuf(definition), &value);
        assert_eq!(record.text, "A text.");
        assert_eq!((record.metadata["year"].as_str(), record.metadata["draft"].as_str()), ("1790", "false"));
    }
    let spec = protobuf(Definition::Proto(PROTO.to_owned()));
    for (value, reason) in [
        (&b"\x0a\x09\x0a\x07A te"[..], "MALFORMED_PROTOBUF"),
        (b"\x0a\x03\x0a\x01\xff", "MALFORMED_PROTOBUF"),
        (b"\x10\x01", "MISSING_TEXT"),
        (b"\x0a\x00", "EMPTY"),
        (b"\xff\xff\xff", "MALFORMED_PROTOBUF"),
    ] {
        assert_eq!(refused(&spec, value).reason, reason, "{value:?}");
    }
}

struct OneFile;

impl protox::file::FileResolver for OneFile {
    fn open_file(&self, name: &str) -> Result<protox::file::File, protox::Error> {
        match name {
            "d.proto" => protox::file::File::from_source(name, PROTO),
            _ => protox::file::GoogleFileResolver::new().open_file(name),
        }
    }
}

#[test]
fn cloudevents_are_read_in_both_modes() {
    let events =
        |format| spec(format, KafkaOptions { envelope: Envelope::Cloudevents.into(), ..KafkaOptions::default() });
    let attributes =
        [("ce_specversion", "1.0"), ("ce_id", "1"), ("ce_source", "/s"), ("ce_type", "doc"), ("ce_subject", "a")];
    let json = [&attributes[..], &[("content-type", "application/json")]].concat();
    let record = decode(&events(RecordFormat::Json), &message(br#"{"text": "A text.", "n": 1}"#, &json)).unwrap();
    assert_eq!(
        (record.text.as_str(), record.metadata["ce_type"].as_str(), record.metadata["n"].as_str()),
        ("A text.", "doc", "1")
    );
    assert_eq!(decode(&events(RecordFormat::Text), &message(b"plain", &attributes)).unwrap().text, "plain");

    let structured = [("Content-Type", "application/cloudevents+json; charset=utf-8")];
    let event = |data: &str| format!(r#"{{"specversion": "1.0", "id": "1", "source": "/s", "type": "doc", {data}}}"#);
    for (format, data) in [
        (RecordFormat::Json, r#""data": {"text": "A text."}"#),
        (RecordFormat::Json, r#""data_base64": "eyJ0ZXh0IjogIkEgdGV4dC4ifQ==""#),
        (RecordFormat::Text, r#""data": "A text.""#),
        (RecordFormat::Text, r#""data_base64": "QSB0ZXh0Lg==""#),
    ] {
        let record = decode(&events(format), &message(event(data).as_bytes(), &structured)).unwrap();
        assert_eq!((record.text.as_str(), record.metadata["ce_id"].as_str()), ("A text.", "1"), "{data}");
    }

    let refused =
        |format, value: &[u8], headers: &[(&str, &str)]| decode(&events(format), &message(value, headers)).unwrap_err();
    for (value, headers) in [
        (b"plain".to_vec(), &attributes[1..]),
        (b"plain".to_vec(), &[("ce_specversion", "0.3"), ("ce_id", "1"), ("ce_source", "/s"), ("ce_type", "doc")]),
        (b"plain".to_vec(), &[("content-type", "application/cloudevents-batch+json")]),
        (b"no json".to_vec(), &structured),
        (b"[]".to_vec(), &structured),
        (event(r#""data_base64": "?""#).into_bytes(), &structured),
        (event(r#""subject": "nothing""#).into_bytes(), &structured),
        (event(r#""data": {"text": "not a string"}"#).into_bytes(), &structured),
        (br#"{"specversion": "1.0", "data": "x"}"#.to_vec(), &structured),
    ] {
        let refused = refused(RecordFormat::Text, &value, headers);
        assert_eq!(refused.reason, "MALFORMED_CLOUDEVENT", "{}", refused.detail);
    }
    assert_eq!(refused(RecordFormat::Json, b"{", &json).reason, "MALFORMED_JSON");
}

#[test]
fn every_wrong_field_of_a_source_is_named() {
    let message = "acme.v1.Other".to_owned();
    let other = ProtobufSchema { message, definition: Some(Definition::Proto(PROTO.to_owned())) };
    let no_proto = ProtobufSchema { definition: Some(Definition::Proto("syntax".to_owned())), ..other.clone() };
    let schema = |text: &str| AvroSchema { schema: text.to_owned(), id: 1 };
    let of = |options| wrong(&spec(RecordFormat::Avro, options));
    assert_eq!(wrong(&spec(RecordFormat::Jsonl, KafkaOptions::default())), [".format"]);
    assert_eq!(
        wrong(&spec(
            RecordFormat::Text,
            KafkaOptions {
                text_field: "a".into(),
                avro_schemas: vec![schema(AVRO)],
                protobuf: Some(other.clone()),
                ..Default::default()
            }
        )),
        [".kafka.text_field", ".kafka.avro_schemas", ".kafka.protobuf"]
    );
    assert_eq!(
        of(KafkaOptions {
            envelope: 9,
            text_field: "a..b".into(),
            avro_schemas: vec![schema("{"), schema("\"int\"")],
            ..Default::default()
        }),
        [
            ".kafka.envelope",
            ".kafka.text_field",
            ".kafka.avro_schemas",
            ".kafka.avro_schemas[0].schema",
            ".kafka.avro_schemas[1].schema"
        ]
    );
    let twice = vec![schema(AVRO), schema(AVRO)];
    assert_eq!(
        of(KafkaOptions { avro_framing: 2, avro_schemas: twice, ..Default::default() }),
        [".kafka.avro_schemas[1]"]
    );
    assert_eq!(of(KafkaOptions::default()), [".kafka.avro_schemas"]);
    let of = |options| wrong(&spec(RecordFormat::Protobuf, options));
    assert_eq!(of(KafkaOptions::default()), [".kafka.protobuf"]);
    assert_eq!(of(KafkaOptions { protobuf: Some(other.clone()), ..Default::default() }), [".kafka.protobuf.message"]);
    assert_eq!(of(KafkaOptions { protobuf: Some(no_proto), ..Default::default() }), [".kafka.protobuf.proto"]);
    let document = ProtobufSchema { message: "acme.v1.Document".to_owned(), ..other };
    assert_eq!(of(KafkaOptions { protobuf: Some(document), ..Default::default() }), [".kafka.text_field"]);
}

#[test]
fn a_definition_reads_no_files_of_this_machine() {
    let proto = "syntax = \"proto3\"; import \"etc/passwd\"; message Document { string text = 1; }".to_owned();
    let protobuf = ProtobufSchema { message: "Document".to_owned(), definition: Some(Definition::Proto(proto)) };
    let spec = spec(RecordFormat::Protobuf, KafkaOptions { protobuf: Some(protobuf), ..KafkaOptions::default() });
    assert_eq!(wrong(&spec), [".kafka.protobuf.proto"]);
}
