//! A plain Kafka client on the command line, for tests and benches that must not link one themselves:
//!
//! ```text
//!   kafka_pipe make BROKERS TOPIC PARTITIONS      makes a topic
//!   kafka_pipe produce BROKERS TOPIC              appends frames from stdin: partition and length as little-endian u32, then the
//!                                                 bytes; length 4294967295 is a message without value
//!   kafka_pipe count BROKERS TOPIC                reads all that is there, counts, and prints `MESSAGES BYTES SECONDS`
//! ```

use std::io::{BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

const PATIENCE: Duration = Duration::from_secs(60);

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["make", brokers, topic, partitions] => make(brokers, topic, partitions.parse()?),
        ["produce", brokers, topic] => produce(brokers, topic),
        ["count", brokers, topic] => count(brokers, topic),
        _ => {
            Err("usage: kafka_pipe make BROKERS TOPIC PARTITIONS | produce BROKERS TOPIC | count BROKERS TOPIC".into())
        }
    }
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers).set("reconnect.backoff.max.ms", "1000");
    config
}

#[tokio::main(flavor = "current_thread")]
async fn make(brokers: &str, topic: &str, partitions: i32) -> Result<(), Failure> {
    let admin: AdminClient<DefaultClientContext> = config(brokers).create()?;
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
    for made in admin.create_topics(&[new], &options).await? {
        made.map_err(|(name, code)| format!("{name}: {code}"))?;
    }
    Ok(())
}

/// Counts what became of each message.
#[derive(Clone, Default)]
struct Fates {
    acknowledged: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
}

impl ClientContext for Fates {}

impl ProducerContext for Fates {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let counter = if result.is_ok() { &self.acknowledged } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn produce(brokers: &str, topic: &str) -> Result<(), Failure> {
    let fates = Fates::default();
    let producer: ThreadedProducer<Fates> = config(brokers)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("linger.ms", "20")
        .set("batch.num.messages", "10000")
        .set("queue.buffering.max.kbytes", "65536")
        .set("message.timeout.ms", "300000")
        .create_with_context(fates.clone())?;
    let mut input = BufReader::with_capacity(1 << 20, std::io::stdin().lock());
    let mut sent = 0;
    while let Some((partition, value)) = frame(&mut input)? {
        let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(topic).partition(partition);
        record.payload = value.as_deref();
        while let Err((error, back)) = producer.send(record) {
            if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
                return Err(error.into());
            }
            std::thread::sleep(Duration::from_millis(2));
            record = back;
        }
        sent += 1;
    }
    producer.flush(Duration::from_secs(300))?;
    let (acknowledged, failed) = (fates.acknowledged.load(Ordering::Relaxed), fates.failed.load(Ordering::Relaxed));
    println!("{sent} sent, {acknowledged} acknowledged, {failed} failed");
    if acknowledged == sent { Ok(()) } else { Err("not every message was acknowledged".into()) }
}

fn frame(input: &mut impl Read) -> std::io::Result<Option<(i32, Option<Vec<u8>>)>> {
    let mut head = [0; 8];
    match input.read_exact(&mut head) {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let [p0, p1, p2, p3, l0, l1, l2, l3] = head;
    let partition = i32::from_le_bytes([p0, p1, p2, p3]);
    let length = u32::from_le_bytes([l0, l1, l2, l3]);
    if length == u32::MAX {
        return Ok(Some((partition, None)));
    }
    let mut value = vec![0; length as usize];
    input.read_exact(&mut value)?;
    Ok(Some((partition, Some(value))))
}

/// As fast as librdkafka gives messages: nothing is done with them.
fn count(brokers: &str, topic: &str) -> Result<(), Failure> {
    let consumer: BaseConsumer = config(brokers)
        .set("group.id", "kafka-pipe-count")
        .set("enable.auto.commit", "false")
        .set("fetch.message.max.bytes", "8388608")
        .set("fetch.max.bytes", "67108864")
        .create()?;
    let (list, wanted) = everything(&consumer, topic)?;
    let begun = Instant::now();
    consumer.assign(&list)?;
    let (mut messages, mut bytes) = (0, 0);
    while messages < wanted {
        let message = consumer.poll(PATIENCE).ok_or("no message came for a minute")??;
        messages += 1;
        bytes += message.payload_len();
    }
    println!("{messages} {bytes} {:.3}", begun.elapsed().as_secs_f64());
    Ok(())
}

/// The beginning of every partition, and how many messages there are.
fn everything(consumer: &BaseConsumer, topic: &str) -> KafkaResult<(TopicPartitionList, i64)> {
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let (mut list, mut wanted) = (TopicPartitionList::new(), 0);
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        let (begin, end) = consumer.fetch_watermarks(topic, partition.id(), PATIENCE)?;
        list.add_partition_offset(topic, partition.id(), Offset::Offset(begin))?;
        wanted += end - begin;
    }
    Ok((list, wanted))
}
