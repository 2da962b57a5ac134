//! The store of resources: what services know, with the events that tell it, in one transaction.
//!
//! A [`Store`] holds records of bytes by resource name. [`Collection`] is its typed face. A [`Batch`] of writes and events commits
//! whole or not at all; the events wait in the outbox until a relay has appended them to the event log (see `platform`).

mod collection;
pub mod contract;
mod metered;
mod postgres;
mod sqlite;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

pub use collection::{Collection, ListPage, Page};

/// A record as the store keeps it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Resource name: `trainingJobs/a`.
    pub name: String,
    /// Collection pattern, with `-` for ids: `trainingJobs/-`, `models/-/versions/-`.
    pub collection: String,
    /// Unique for all time.
    pub uid: String,
    /// Changes with every write.
    pub etag: String,
    /// The resource, encoded by its owner.
    pub body: Bytes,
    /// Microseconds since the epoch.
    pub create_micros: i64,
    /// Microseconds since the epoch.
    pub update_micros: i64,
}

/// An event to publish when the batch commits.
#[derive(Clone, Debug, PartialEq)]
pub struct OutboxEvent {
    /// Unique id; consumers are idempotent on it.
    pub id: String,
    /// Topic, from `tidemill_proto::topics`.
    pub topic: String,
    /// Events of one key keep their order.
    pub key: String,
    /// CloudEvents type: the payload's full protobuf name.
    pub event_type: String,
    /// Encoded payload.
    pub payload: Bytes,
    /// Trace context and the like.
    pub headers: Vec<(String, String)>,
}

/// One write of a batch.
#[derive(Clone, Debug)]
pub enum Write {
    /// Fails with [`Error::AlreadyExists`] if the name is taken, unless `request_id` is the one it was created with: then nothing
    /// is written, the batch's events are dropped, and the present record is returned.
    Create {
        /// Resource name.
        name: String,
        /// Encoded resource.
        body: Bytes,
        /// Makes a retry safe.
        request_id: Option<String>,
    },
    /// Fails with [`Error::Conflict`] unless `etag` is the present one.
    Update {
        /// Resource name.
        name: String,
        /// Etag that was read.
        etag: String,
        /// Encoded resource.
        body: Bytes,
    },
    /// Fails with [`Error::Conflict`] unless `etag` is the present one.
    Delete {
        /// Resource name.
        name: String,
        /// Etag that was read.
        etag: String,
    },
}

/// Writes and events that commit together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Applied in order.
    pub writes: Vec<Write>,
    /// Published in order.
    pub events: Vec<OutboxEvent>,
}

/// Which records to list: newest first.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// Collection pattern, `models/-/versions/-`.
    pub collection: String,
    /// Only names that start with this, `models/sotu/versions/`; empty means all.
    pub name_prefix: String,
    /// At most this many.
    pub limit: usize,
    /// Position after which to go on: the (create_micros, name) of the last record seen.
    pub after: Option<(i64, String)>,
}

/// A waiting event and its place in the outbox.
#[derive(Clone, Debug)]
pub struct Pending {
    /// Place: increasing in commit order.
    pub sequence: i64,
    /// The event.
    pub event: OutboxEvent,
}

/// What can go wrong, by meaning.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No record has that name.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The name is taken.
    #[error("{0} exists already")]
    AlreadyExists(String),
    /// Somebody else wrote first; read again.
    #[error("{0} was changed by somebody else; read it again")]
    Conflict(String),
    /// The disk is full.
    #[error("the disk that holds {0} is full; free space, then retry")]
    DiskFull(String),
    /// The store cannot be reached or opened.
    #[error("the resource store {url} is unavailable: {reason}")]
    Unavailable {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// An argument is not acceptable.
    #[error("{field}: {reason}")]
    InvalidArgument {
        /// Which argument.
        field: String,
        /// Why, and what would be.
        reason: String,
    },
    /// A stored body does not decode: the store is damaged or another version wrote it.
    #[error("{name} cannot be read: {reason}")]
    Corrupt {
        /// Resource name.
        name: String,
        /// Why.
        reason: String,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The port. Every adapter passes [`contract`].
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Commits a batch, durably, whole or not at all. Returns the record after each write (the deleted one for a delete).
    async fn commit(&self, batch: Batch) -> Result<Vec<Record>>;
    /// Reads a record.
    async fn get(&self, name: &str) -> Result<Record>;
    /// Lists records, newest first (ties by name, descending).
    async fn list(&self, list: List) -> Result<Vec<Record>>;
    /// Reads waiting events in commit order, at most `limit`.
    async fn pending(&self, limit: usize) -> Result<Vec<Pending>>;
    /// Forgets waiting events up to and including `sequence`: they are durable in the log.
    async fn published(&self, sequence: i64) -> Result<()>;
    /// Tries to lead: of all that use one store, one at a time does, and relays the outbox. None says that another leads. Dropping the
    /// leadership gives it back.
    async fn lead(&self) -> Result<Option<Box<dyn Leadership>>>;
    /// Wakes at every commit of this process, and soon after one of another. A hint, not a promise: also look from time to time.
    fn committed(&self) -> tokio::sync::watch::Receiver<u64>;
}

/// The right to relay, until it is dropped or lost.
#[async_trait]
pub trait Leadership: Send + Sync {
    /// Returns when the leadership is lost, before another can have it. Cancel-safe.
    async fn lost(&mut self);
}

/// Opens the store that a URL names: `sqlite:///path/to/file.db` (one process), `sqlite::memory:` for tests, or
/// `postgres://user@host:5432/database?password_file=/path&sslmode=verify-full&sslrootcert=/path&schema=tidemill` (many processes; its
/// sessions hold locks, so a pooler in between must pool sessions, not transactions).
pub async fn connect(url: &str) -> Result<Arc<dyn Store>> {
    let store: Arc<dyn Store> = match url.split_once(':') {
        Some(("sqlite", _)) => Arc::new(sqlite::SqliteStore::open(url).await?),
        Some(("postgres" | "postgresql", _)) => Arc::new(postgres::PostgresStore::open(url).await?),
        _ => {
            return Err(Error::Unavailable {
                url: tidemill_address::masked(url),
                reason: format!("unknown scheme; use sqlite:///path/to/file.db or {}", postgres::EXAMPLE),
            });
        }
    };
    Ok(Arc::new(metered::Metered(store)))
}
