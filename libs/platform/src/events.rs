//! Events as services write them.

use bytes::Bytes;
use prost::{Message, Name};
use tidemill_chassis::telemetry;
use tidemill_resources::OutboxEvent;

/// An event for the outbox: `key` orders it, the payload's protobuf name is its type. Whoever handles it continues the present trace.
pub fn event<M: Message + Name>(topic: &str, key: &str, payload: &M) -> OutboxEvent {
    OutboxEvent {
        id: uuid::Uuid::now_v7().to_string(),
        topic: topic.to_owned(),
        key: key.to_owned(),
        event_type: M::full_name(),
        payload: Bytes::from(payload.encode_to_vec()),
        headers: telemetry::current(),
    }
}
