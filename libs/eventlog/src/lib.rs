//! The log of events, as consumers and producers see it.
//!
//! ```text
//!   append ──> topic ──> partition 0: e1 e4 e5 ──> group "pipeline" (committed: e1)  next() -> e4
//!                    └─> partition 1: e2 e3    └─> group "inference-7" (committed: -)  next() -> e1
//! ```
//!
//! Promises (each a function of [`contract`]): at least once; order per key; a delivery is redelivered to its group until it is
//! committed, also after a crash; groups do not see each other; a new group starts at the beginning; headers survive;
//! members of one group share its partitions.

pub mod contract;
mod file;
mod kafka;
mod metered;
pub mod reader;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

/// One event: CloudEvents attributes as fields, payload as protobuf bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Unique id. Consumers are idempotent on it; appending the same id to the same topic again changes nothing.
    ///
    /// A file keeps that promise for ever. Kafka knows no ids, so there it holds within bounds: for the last 16,384 ids that a process
    /// appended to or saw in a topic, and, of what other processes appended, for the last 1,024 events of each partition; and it
    /// holds for processes that append one after the other (as relays do: one has the outbox at a time), not for two that append
    /// the same id at the same instant.
    pub id: String,
    /// Where it goes.
    pub topic: String,
    /// Events of one key keep their order.
    pub key: String,
    /// The payload's full protobuf name.
    pub event_type: String,
    /// Microseconds since the epoch, set by the producer.
    pub time_micros: i64,
    /// Trace context and the like.
    pub headers: Vec<(String, String)>,
    /// Encoded payload.
    pub payload: Bytes,
}

/// An event as a group received it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The event.
    pub event: Event,
    /// Partition it came from.
    pub partition: u32,
    /// Its place there.
    pub offset: i64,
    /// How often this group received it, counting from 1; after a restart the count begins again.
    pub attempt: u32,
}

/// What can go wrong, by meaning.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds the log.
    #[error("the event log {url} is in use by another process (pid {pid}); stop it, or choose another data directory")]
    InUse {
        /// Where.
        url: String,
        /// Who holds it, if known.
        pid: String,
    },
    /// The URL is wrong: trying again cannot help.
    #[error("the address of the event log is wrong: {url}: {reason}")]
    Address {
        /// Which, without its parameters.
        url: String,
        /// Why, and what to write instead.
        reason: String,
    },
    /// The disk is full.
    #[error("the disk that holds {0} is full; free space, then retry")]
    DiskFull(String),
    /// The delivery was released before, or another subscription received it.
    #[error("offset {offset} of {topic} is not held by this subscription: it was released, or another one received it")]
    NotHeld {
        /// Topic of the delivery.
        topic: String,
        /// Its place in its partition.
        offset: i64,
    },
    /// The log cannot be reached or opened.
    #[error("the event log {url} is unavailable: {reason}")]
    Unavailable {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The port.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Appends events; returns when all are durable.
    async fn append(&self, events: Vec<Event>) -> Result<()>;
    /// Joins a group on some topics. Dropping the subscription leaves the group; what it had not committed goes to others.
    async fn subscribe(&self, topics: &[&str], group: &str) -> Result<Box<dyn Subscription>>;
}

/// A member of a group.
#[async_trait]
pub trait Subscription: Send {
    /// Waits for the next event. Cancel-safe. Of one partition the next is handed out only after the one before is committed or
    /// released.
    async fn next(&mut self) -> Result<Delivery>;
    /// Marks a delivery as done, durably.
    async fn commit(&mut self, delivery: &Delivery) -> Result<()>;
    /// Hands a delivery back: the group receives it again after `delay`.
    async fn release(&mut self, delivery: &Delivery, delay: std::time::Duration) -> Result<()>;
}

/// Opens the log that a URL names: `file:///path/to/events.db` (SQLite, one process, guarded by a lock file) or
/// `kafka://host:port,host:port?…` (Apache Kafka; contacts the brokers when they are first needed).
pub async fn connect(url: &str) -> Result<Arc<dyn Log>> {
    let log: Arc<dyn Log> = match url.split_once(':') {
        Some(("file", _)) => Arc::new(file::FileLog::open(url).await?),
        Some(("kafka", _)) => Arc::new(kafka::KafkaLog::connect(url).await?),
        _ => {
            let reason = "unknown scheme; use file:///path/to/events.db or kafka://host:port".to_owned();
            return Err(Error::Address { url: url.to_owned(), reason });
        }
    };
    Ok(Arc::new(metered::Metered(log)))
}
