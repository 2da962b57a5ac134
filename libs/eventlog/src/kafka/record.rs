//! An event as a Kafka record: CloudEvents in the binary mode of its Kafka binding, so that foreign tools can read it.

use bytes::Bytes;
use jiff::Timestamp;
use rdkafka::Message;
use rdkafka::message::{Header, Headers, OwnedHeaders};
use tidemill_proto::topics;

use crate::Event;

const ID: &str = "ce_id";
const TYPE: &str = "ce_type";
const TIME: &str = "ce_time";
const SOURCE: &str = "ce_source";
const VERSION: &str = "ce_specversion";
const CONTENT_TYPE: &str = "content-type";

/// The headers that come from an event's fields, with those that it brings.
pub(super) fn headers(event: &Event) -> OwnedHeaders {
    let source = topics::ALL.iter().find(|topic| topic.name == event.topic).map_or("tidemill", |topic| topic.producer);
    let mut headers = OwnedHeaders::new_with_capacity(event.headers.len() + 6);
    let mut add = |key: &str, value: &str| {
        headers = std::mem::take(&mut headers).insert(Header { key, value: Some(value) });
    };
    add(VERSION, "1.0");
    add(ID, &event.id);
    add(TYPE, &event.event_type);
    add(SOURCE, &format!("/tidemill/{source}"));
    if let Ok(time) = Timestamp::from_microsecond(event.time_micros) {
        add(TIME, &time.to_string());
    }
    add(CONTENT_TYPE, "application/protobuf");
    for (name, value) in &event.headers {
        add(name, value);
    }
    headers
}

/// The event that a record carries. What others wrote without our headers gets its place as id, and no type.
pub(super) fn event(topic: &str, record: &impl Message) -> Event {
    let mut event = Event {
        id: String::new(),
        topic: topic.to_owned(),
        key: text(record.key().unwrap_or_default()),
        event_type: String::new(),
        time_micros: record.timestamp().to_millis().unwrap_or_default().saturating_mul(1000),
        headers: Vec::new(),
        payload: Bytes::copy_from_slice(record.payload().unwrap_or_default()),
    };
    for Header { key, value } in record.headers().into_iter().flat_map(Headers::iter) {
        let value = text(value.unwrap_or_default());
        match key {
            ID => event.id = value,
            TYPE => event.event_type = value,
            TIME => {
                if let Ok(time) = value.parse::<Timestamp>() {
                    event.time_micros = time.as_microsecond();
                }
            }
            SOURCE | VERSION | CONTENT_TYPE => {}
            _ => event.headers.push((key.to_owned(), value)),
        }
    }
    if event.id.is_empty() {
        event.id = format!("{topic}/{}/{}", record.partition(), record.offset());
    }
    event
}

/// The id of the event that a record carries, if it has one.
pub(super) fn id(record: &impl Message) -> Option<String> {
    let headers = record.headers()?;
    headers.iter().find(|header| header.key == ID).and_then(|header| header.value.map(text))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
