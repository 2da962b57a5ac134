//! How far groups are behind: one gauge for a group and topic, over all partitions that members in this process have.

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use super::lanes::Place;
use super::lock;

#[derive(Default)]
pub(super) struct Lag(Mutex<HashMap<(String, String), BTreeMap<i32, i64>>>);

impl Lag {
    /// Events of a partition that a group has not committed.
    pub(super) fn set(&self, group: &str, (topic, partition): &Place, events: i64) {
        let mut lags = lock(&self.0);
        let partitions = lags.entry((group.to_owned(), topic.clone())).or_default();
        partitions.insert(*partition, events);
        record(group, topic, partitions);
    }

    /// The partition is another member's now, and that one counts it.
    pub(super) fn forget(&self, group: &str, (topic, partition): &Place) {
        if let Some(partitions) = lock(&self.0).get_mut(&(group.to_owned(), topic.clone())) {
            partitions.remove(partition);
            record(group, topic, partitions);
        }
    }
}

fn record(group: &str, topic: &str, partitions: &BTreeMap<i32, i64>) {
    let events: i64 = partitions.values().sum();
    metrics::gauge!("tidemill_consumer_lag", "topic" => topic.to_owned(), "group" => label(group).to_owned())
        .set(events as f64);
}

/// A group that one process made for itself, `inference-<uuid>`, without its id: else each start would add a series for good.
fn label(group: &str) -> &str {
    match group.rsplit_once('-') {
        Some((name, id)) if id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()) => name,
        _ => group,
    }
}
