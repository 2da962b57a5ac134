//! Where a record of a topic was: `topic:partition:offset`. Topic names have no colon.

use std::fmt;

/// The place of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Origin<'a> {
    /// The topic.
    pub(crate) topic: &'a str,
    /// The partition.
    pub(crate) partition: i32,
    /// The offset.
    pub(crate) offset: i64,
}

impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.topic, self.partition, self.offset)
    }
}

/// The offset that an origin ends with.
pub(crate) fn offset_of(origin: &str) -> Option<i64> {
    origin.rsplit(':').next()?.parse().ok()
}
