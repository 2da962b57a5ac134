//! Reads the ends of topics: which ids did others append?

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::context::Quiet;
use super::{Answer, record, remaining};

/// Records of a partition that a look reads at most: what was appended before them is not compared with.
const LONGEST: i64 = 1024;

/// Wait before the cluster is asked again.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Tail {
    consumer: BaseConsumer<Quiet>,
}

impl Tail {
    /// A reader that joins no group; librdkafka wants a name of one nevertheless.
    pub(super) fn new(config: &ClientConfig, prefix: &str) -> Answer<Tail> {
        let consumer = config
            .clone()
            .set("group.id", format!("{prefix}tidemill.tail"))
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_uncommitted")
            .set("fetch.wait.max.ms", "50")
            .create_with_context(Quiet)?;
        Ok(Tail { consumer })
    }

    /// The offset that the next record of each partition will get.
    pub(super) fn ends(&self, topic: &str, partitions: i32, deadline: Instant) -> Answer<Vec<i64>> {
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            list.add_partition_offset(topic, partition, Offset::End)?;
        }
        loop {
            let wait = remaining(deadline)?;
            match self.consumer.offsets_for_times(list.clone(), wait).and_then(|found| offsets(&found)) {
                Ok(ends) => return Ok(ends),
                // A partition may have no leader for a moment: it has just been created, or its broker restarts.
                Err(error) if remaining(deadline).is_ok_and(|left| left > PAUSE) => {
                    tracing::debug!(%error, topic, "asking again for the ends");
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The ids between the first offsets not looked at yet and the ends.
    pub(super) fn ids(
        &self,
        topic: &str,
        looked: Option<&[i64]>,
        ends: &[i64],
        deadline: Instant,
    ) -> Answer<Vec<String>> {
        let mut list = TopicPartitionList::new();
        let mut unread = HashSet::new();
        for (partition, end) in ends.iter().enumerate() {
            let from = looked.and_then(|looked| looked.get(partition)).copied().unwrap_or(0).max(end - LONGEST);
            if from < *end {
                let partition = partition as i32;
                list.add_partition_offset(topic, partition, Offset::Offset(from))?;
                unread.insert(partition);
            }
        }
        if unread.is_empty() {
            return Ok(Vec::new());
        }
        self.consumer.assign(&list)?;
        let ids = self.read(unread, ends, deadline);
        self.consumer.unassign()?;
        ids
    }

    fn read(&self, mut unread: HashSet<i32>, ends: &[i64], deadline: Instant) -> Answer<Vec<String>> {
        let mut ids = Vec::new();
        while !unread.is_empty() {
            let wait = remaining(deadline)?.min(Duration::from_millis(100));
            match self.consumer.poll(wait) {
                Some(Ok(message)) => {
                    ids.extend(record::id(&message));
                    if message.offset() + 1 >= ends[message.partition() as usize] {
                        unread.remove(&message.partition());
                    }
                }
                // The last offsets may hold no record: those that mark a transaction, or that compaction took.
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    unread.remove(&partition);
                }
                // Reported by the context; the client tries again.
                Some(Err(_)) | None => {}
            }
        }
        Ok(ids)
    }
}

fn offsets(found: &TopicPartitionList) -> KafkaResult<Vec<i64>> {
    let mut elements = found.elements();
    elements.sort_by_key(|element| element.partition());
    elements.iter().map(|element| element.error().map(|()| element.offset().to_raw().unwrap_or_default())).collect()
}
