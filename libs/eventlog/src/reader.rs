//! Topics of others: raw messages at full speed, for those who keep their own place.
//!
//! ```text
//!   join ──> Assigned [0, 2] ──> start [(0, 41), (2, 7)] ──> Messages 0: 41 42 43, 2: 7 8 ──> … ──> Revoked [2]
//! ```
//!
//! A member of a group gets partitions, says where to begin in each, and reads. Where it has come to is its own knowledge; what it
//! commits to the group is for tools that show lag, and for scalers: nobody begins there. Partitions are moved cooperatively: a
//! member that joins takes none from those who keep theirs.

mod kafka;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::Result;

/// One message, byte for byte.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Message {
    /// Its place in its partition.
    pub offset: i64,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; none deletes what its key named.
    pub value: Option<Vec<u8>>,
    /// Its headers, in order.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
}

/// The offsets of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The partition.
    pub partition: i32,
    /// The oldest offset that is still there.
    pub begin: i64,
    /// The offset that the next message will have.
    pub end: i64,
}

/// What a member of a group is told.
#[derive(Debug, PartialEq)]
pub enum News {
    /// These partitions are the member's from now on; nothing of them comes before [`Reader::start`].
    Assigned(Vec<i32>),
    /// These are no longer.
    Revoked(Vec<i32>),
    /// Below these offsets of these partitions no message is left that has not come: what is missing was a transaction's marker, or
    /// aborted, or compacted away. Told some seconds after a partition has come to its end.
    Passed(Vec<(i32, i64)>),
    /// Messages by partition, each in order; nothing for long is an empty list.
    Messages(Vec<(i32, Vec<Message>)>),
}

/// A message that could not be read, on its way to `<topic>.dlq`.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// The partition it came from.
    pub partition: i32,
    /// The message; key, value and headers stay as they are.
    pub message: Message,
    /// Why, as CODE and in words.
    pub cause: String,
}

impl DeadLetter {
    /// What is added to the headers: the place the message came from, an id made of it, by which a repeat is known, and the cause.
    pub fn headers(&self, topic: &str) -> [(&'static str, String); 5] {
        let (partition, offset) = (self.partition, self.message.offset);
        [
            ("tidemill-id", format!("{topic}/{partition}/{offset}")),
            ("tidemill-topic", topic.to_owned()),
            ("tidemill-partition", partition.to_string()),
            ("tidemill-offset", offset.to_string()),
            ("tidemill-cause", self.cause.clone()),
        ]
    }
}

/// A topic of somebody else.
#[async_trait]
pub trait Topic: Send + Sync + 'static {
    /// Its name.
    fn name(&self) -> &str;
    /// Every partition's offsets at this moment, by partition.
    async fn extents(&self) -> Result<Vec<Extent>>;
    /// The group that readers join.
    fn group(&self) -> &str;
    /// Joins the group. Dropping the reader leaves it.
    fn join(&self) -> Result<Box<dyn Reader>>;
    /// Appends to `<topic>.dlq`, which is made if it is missing; returns when all are durable. At least once: a repeat has the same
    /// `tidemill-id`.
    async fn bury(&self, dead: Vec<DeadLetter>) -> Result<()>;
}

/// A member of a group, for a thread of its own: nothing here is async, because a message more or less costs nothing.
pub trait Reader: Send {
    /// Waits for news, at most this long.
    fn next(&mut self, wait: Duration) -> Result<News>;
    /// Begins to read at these offsets: of partitions that were just assigned, or, anew, of those that are read already. Where an offset
    /// is no longer there, the oldest that is.
    fn start(&mut self, at: &[(i32, i64)]) -> Result<()>;
    /// Tells the group how far the member has come, for those who look at lag. Does not wait.
    fn commit(&mut self, at: &[(i32, i64)]) -> Result<()>;
    /// Messages of the member's partitions that the group has not come to, as of a few seconds ago.
    fn lag(&self) -> i64;
}

/// The topic that a URL names: `kafka://host:9092,host:9092/topic?security_protocol=…`, to be read by `group` unless the URL has
/// another as `group_id`. Connects to nothing yet.
///
/// # Errors
/// A wrong URL, or a file that it names and that cannot be read.
pub fn open(url: &str, group: &str) -> Result<Arc<dyn Topic>> {
    Ok(Arc::new(kafka::KafkaTopic::open(url, group)?))
}
