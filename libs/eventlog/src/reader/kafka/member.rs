//! A member of a group of consumers. Partitions are taken in two steps: the group assigns them, and the caller says where to begin.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{BorrowedMessage, Headers, Message as _};
use rdkafka::types::RDKafkaRespErr;
use rdkafka::util::Timeout;
use rdkafka::{ClientConfig, ClientContext, Offset, Statistics, TopicPartitionList};

use super::super::{Message, News, Reader};
use crate::kafka::address::SESSION_MILLIS;
use crate::{Error, Result};

/// Most messages, and bytes, handed out at once: what a reader holds in memory beside librdkafka's own queue.
const BATCH_MESSAGES: usize = 4096;
const BATCH_BYTES: usize = 4 << 20;
/// How long a move to another offset may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two warnings of one member.
const QUIET: Duration = Duration::from_secs(30);

pub(super) struct Member {
    consumer: BaseConsumer<Group>,
    topic: String,
    /// Partitions that are being read, and how far each is known to be read.
    reading: BTreeMap<i32, End>,
}

/// What is known of a partition's end.
#[derive(Clone, Copy, Default)]
struct End {
    /// No message has come since librdkafka said that it had come to the end.
    reached: bool,
    /// Where librdkafka said that was, when it was asked last; and what was told.
    seen: i64,
    told: i64,
}

/// What librdkafka tells on the thread that polls, kept until that thread asks.
struct Group {
    news: Mutex<VecDeque<News>>,
    lag: AtomicI64,
    /// By partition, the end that librdkafka told last; none once it has been looked at.
    ends: Mutex<Option<Vec<(i32, i64)>>>,
    /// When an error was logged last: while a broker is away librdkafka has one for every attempt.
    warned: Mutex<Option<Instant>>,
    closing: AtomicBool,
}

impl ClientContext for Group {
    fn stats(&self, statistics: Statistics) {
        let partitions = || statistics.topics.values().flat_map(|topic| topic.partitions.values());
        // -1 is unknown: nothing was committed yet, or the partition is another member's.
        let lag = partitions().map(|partition| partition.consumer_lag.max(0)).sum();
        self.lag.store(lag, Ordering::Relaxed);
        let ends = partitions().map(|partition| (partition.partition, partition.eof_offset)).collect();
        *self.ends.lock().expect("no holder of this lock panics") = Some(ends);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let mut warned = self.warned.lock().expect("no holder of this lock panics");
        if warned.is_none_or(|warned| warned.elapsed() > QUIET) {
            *warned = Some(Instant::now());
            tracing::warn!(%error, reason, "kafka");
        }
    }
}

impl ConsumerContext for Group {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, partitions: &mut TopicPartitionList) {
        let named: Vec<i32> = partitions.elements().iter().map(|element| element.partition()).collect();
        let closing = self.closing.load(Ordering::Relaxed);
        let (news, answered) = match code {
            // Answered by `start`, unless there is nothing to start, or nobody will call that any more.
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS if closing || named.is_empty() => {
                (News::Assigned(named), consumer.incremental_assign(partitions))
            }
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => (News::Assigned(named), Ok(())),
            _ => (News::Revoked(named), consumer.incremental_unassign(partitions)),
        };
        if let Err(error) = answered {
            tracing::warn!(%error, "the group's decision cannot be answered");
        }
        if partitions.count() > 0 {
            self.news.lock().expect("no holder of this lock panics").push_back(news);
        }
    }
}

impl Member {
    pub(super) fn join(mut config: ClientConfig, topic: &str, group: &str) -> KafkaResult<Member> {
        config
            .set("group.id", group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // Where the caller's offset is gone: what is left is better than nothing, and better than the newest only.
            .set("auto.offset.reset", "earliest")
            .set("enable.partition.eof", "true")
            .set("session.timeout.ms", SESSION_MILLIS)
            .set("heartbeat.interval.ms", "2000")
            // One answer of a broker fills a large part of the queue; the queue is what a slow caller costs in memory.
            .set("fetch.wait.max.ms", "100")
            .set("fetch.message.max.bytes", "8388608")
            .set("fetch.max.bytes", "67108864")
            .set("queued.max.messages.kbytes", "65536")
            .set("statistics.interval.ms", "5000");
        let (lag, closing) = (AtomicI64::new(0), AtomicBool::new(false));
        let group = Group { news: Mutex::default(), lag, ends: Mutex::default(), warned: Mutex::default(), closing };
        let consumer: BaseConsumer<Group> = config.create_with_context(group)?;
        consumer.subscribe(&[topic])?;
        Ok(Member { consumer, topic: topic.to_owned(), reading: BTreeMap::new() })
    }

    /// What the group has decided meanwhile.
    fn decided(&mut self) -> Option<News> {
        let news = self.consumer.context().news.lock().expect("no holder of this lock panics").pop_front()?;
        if let News::Revoked(partitions) = &news {
            self.reading.retain(|partition, _| !partitions.contains(partition));
        }
        Some(news)
    }

    /// Partitions whose end was the same at two looks, without a message in between, after librdkafka had said that it was there. The
    /// second look is seconds after the first, and the queue was empty meanwhile: so whatever came before that end has come.
    fn passed(&mut self) -> Option<News> {
        let ends = self.consumer.context().ends.lock().expect("no holder of this lock panics").take()?;
        let mut passed = Vec::new();
        for (partition, offset) in ends {
            let Some(end) = self.reading.get_mut(&partition).filter(|end| end.reached) else { continue };
            if offset == end.seen && offset > end.told {
                end.told = offset;
                passed.push((partition, offset));
            }
            end.seen = offset;
        }
        (!passed.is_empty()).then_some(News::Passed(passed))
    }

    fn list(&self, at: &[(i32, i64)]) -> KafkaResult<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in at {
            list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset))?;
        }
        Ok(list)
    }

    fn begin(&mut self, at: &[(i32, i64)]) -> KafkaResult<()> {
        let (again, new): (Vec<_>, Vec<_>) =
            at.iter().copied().partition(|(partition, _)| self.reading.contains_key(partition));
        if !new.is_empty() {
            self.consumer.incremental_assign(&self.list(&new)?)?;
        }
        if !again.is_empty() {
            let sought = self.consumer.seek_partitions(self.list(&again)?, PATIENCE)?;
            sought.elements().iter().try_for_each(|element| element.error())?;
        }
        self.reading.extend(at.iter().map(|(partition, _)| (*partition, End::default())));
        Ok(())
    }

    fn failed(&self, error: KafkaError) -> Error {
        Error::Unavailable { url: format!("topic {}", self.topic), reason: error.to_string() }
    }
}

impl Reader for Member {
    fn next(&mut self, wait: Duration) -> Result<News> {
        if let Some(news) = self.decided() {
            return Ok(news);
        }
        let mut batch: BTreeMap<i32, Vec<Message>> = BTreeMap::new();
        let (mut count, mut bytes) = (0, 0);
        let mut patience = Timeout::After(wait);
        while count < BATCH_MESSAGES && bytes < BATCH_BYTES {
            match self.consumer.poll(patience) {
                Some(Ok(message)) => {
                    count += 1;
                    bytes += message.payload_len() + message.key_len();
                    if let Some(end) = self.reading.get_mut(&message.partition()) {
                        *end = End { told: end.told, ..End::default() };
                    }
                    batch.entry(message.partition()).or_default().push(owned(&message));
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    if let Some(end) = self.reading.get_mut(&partition) {
                        end.reached = true;
                    }
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(self.failed(error)),
                // librdkafka tries again by itself; the context has logged why it must.
                Some(Err(error)) => tracing::debug!(%error, topic = self.topic, "kafka"),
                None => break,
            }
            // Only what is there already joins the batch.
            patience = Timeout::After(Duration::ZERO);
        }
        if batch.is_empty()
            && let Some(news) = self.decided().or_else(|| self.passed())
        {
            return Ok(news);
        }
        Ok(News::Messages(batch.into_iter().collect()))
    }

    fn start(&mut self, at: &[(i32, i64)]) -> Result<()> {
        self.begin(at).map_err(|error| self.failed(error))
    }

    fn commit(&mut self, at: &[(i32, i64)]) -> Result<()> {
        let committed = self.list(at).and_then(|list| self.consumer.commit(&list, CommitMode::Async));
        committed.map_err(|error| self.failed(error))
    }

    fn lag(&self) -> i64 {
        self.consumer.context().lag.load(Ordering::Relaxed)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.consumer.context().closing.store(true, Ordering::Relaxed);
        // The consumer's own drop leaves the group, and waits until every assignment has been answered.
        while let Some(news) = self.decided() {
            let News::Assigned(partitions) = news else { continue };
            let at: Vec<_> = partitions.into_iter().map(|partition| (partition, 0)).collect();
            if let Err(error) = self.begin(&at) {
                tracing::debug!(%error, topic = self.topic, "an assignment could not be answered on leaving");
            }
        }
    }
}

fn owned(message: &BorrowedMessage<'_>) -> Message {
    let headers = message.headers().map(|headers| {
        headers.iter().map(|header| (header.key.to_owned(), header.value.map(<[u8]>::to_vec))).collect()
    });
    Message {
        offset: message.offset(),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers: headers.unwrap_or_default(),
    }
}
