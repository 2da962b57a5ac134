//! A segment: consecutive messages of one partition, decoded, on their way to the artifact store.

use std::cmp::Ordering;

use bytes::Bytes;
use tidemill_dataset::{Quarantined, Record, encode_shard};
use tidemill_eventlog::reader::{DeadLetter, Message};

use super::decode::Session;
use super::origin::{Origin, offset_of};
use crate::error::Error;
use crate::records::Outcome;

/// Grows by messages until it is cut.
pub(super) struct Segment {
    /// The first offset, and the one after the last.
    pub(super) begin: i64,
    pub(super) end: i64,
    /// Bytes of the messages' keys and values: what the segment costs in memory, about.
    pub(super) bytes: usize,
    records: Vec<Record>,
    refused: Vec<Quarantined>,
    dead: Vec<DeadLetter>,
}

/// A segment as it is stored.
pub(super) struct Sealed {
    /// Shard of records; none if there are none.
    pub(super) records: Option<Bytes>,
    /// Shard of refusals; none if there are none.
    pub(super) refused: Option<Bytes>,
    /// Messages to bury before the cursor moves.
    pub(super) dead: Vec<DeadLetter>,
    /// Messages kept.
    pub(super) record_count: usize,
}

impl Segment {
    pub(super) fn new(begin: i64) -> Self {
        Self { begin, end: begin, bytes: 0, records: Vec::new(), refused: Vec::new(), dead: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.end == self.begin
    }

    /// Adds a message. One from before the segment was collected already, and is passed over.
    pub(super) fn add(&mut self, session: &Session<'_>, topic: &str, partition: i32, message: Message) {
        if message.offset < self.end {
            return;
        }
        self.end = message.offset + 1;
        self.bytes += message.key.as_ref().map_or(0, Vec::len) + message.value.as_ref().map_or(0, Vec::len);
        let origin = Origin { topic, partition, offset: message.offset };
        match session.decode(&origin, &message) {
            Ok(record) => self.records.push(record),
            Err(refused) => {
                let cause = format!("{}: {}", refused.reason, refused.detail);
                self.dead.push(DeadLetter { partition, message, cause });
                self.refused.push(refused);
            }
        }
    }

    /// What is stored of it.
    pub(super) fn seal(self) -> Result<Sealed, Error> {
        Ok(Sealed {
            records: if self.records.is_empty() { None } else { Some(encode_shard(&self.records)?) },
            refused: if self.refused.is_empty() { None } else { Some(encode_shard(&self.refused)?) },
            dead: self.dead,
            record_count: self.records.len(),
        })
    }
}

/// Records and refusals of one segment as the outcomes they were, in the order of their offsets.
pub(super) fn outcomes(
    records: impl Iterator<Item = Result<Record, tidemill_dataset::Error>>,
    refused: impl Iterator<Item = Result<Quarantined, tidemill_dataset::Error>>,
) -> impl Iterator<Item = Result<(i64, Outcome), Error>> {
    let (mut records, mut refused) = (records.peekable(), refused.peekable());
    std::iter::from_fn(move || {
        let order = match (records.peek(), refused.peek()) {
            (None, None) => return None,
            (Some(Err(_)), _) | (Some(_), None) => Ordering::Less,
            (_, Some(Err(_))) | (None, Some(_)) => Ordering::Greater,
            (Some(Ok(record)), Some(Ok(refused))) => offset_of(&record.origin).cmp(&offset_of(&refused.origin)),
        };
        let outcome = match order {
            Ordering::Less => records.next()?.map(Ok),
            _ => refused.next()?.map(Err),
        };
        Some(outcome.map_err(Error::from).and_then(placed))
    })
}

fn placed(outcome: Outcome) -> Result<(i64, Outcome), Error> {
    let origin = match &outcome {
        Ok(record) => &record.origin,
        Err(refused) => &refused.origin,
    };
    let damaged = || Error::Damaged { uri: origin.clone(), detail: "it should end with an offset".to_owned() };
    Ok((offset_of(origin).ok_or_else(damaged)?, outcome))
}
