//! Writes dead letters to `<topic>.dlq` of the same cluster, each to the partition of the number it came from.

use std::time::Duration;

use futures::future::try_join_all;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;

use super::{DeadLetter, PATIENCE};

/// Dead letters may hold personal data: a week is time enough to look at them.
const RETENTION_MILLIS: &str = "604800000";
/// Larger than what the topic itself takes, because the headers of a dead letter come on top.
const LARGEST_BYTES: &str = "134217728";
/// How long a full queue is waited for.
const QUEUE_PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Producer {
    producer: FutureProducer,
    source: String,
    topic: String,
    partitions: i32,
}

impl Producer {
    /// Opens the topic of dead letters; makes it, as wide as the topic, if it is missing.
    pub(super) async fn open(config: ClientConfig, source: &str) -> KafkaResult<Producer> {
        let topic = format!("{source}.dlq");
        let mut producing = config.clone();
        producing
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("linger.ms", "5")
            .set("compression.type", "zstd")
            .set("message.max.bytes", LARGEST_BYTES)
            .set("delivery.timeout.ms", "60000");
        let producer: FutureProducer = producing.create()?;
        let client = producer.clone();
        let names = [source.to_owned(), topic.clone()];
        let counted = tokio::task::spawn_blocking(move || names.map(|name| partitions(&client, &name)));
        let [wanted, found] = counted.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        let mut partitions = found?;
        if partitions == 0 {
            partitions = wanted?.max(1);
            make(&config, &topic, partitions).await?;
        }
        Ok(Producer { producer, source: source.to_owned(), topic, partitions })
    }

    /// Returns when all are durable.
    pub(super) async fn send(&self, dead: Vec<DeadLetter>) -> KafkaResult<()> {
        let sent = dead.iter().map(|letter| async move {
            let mut headers = OwnedHeaders::new_with_capacity(letter.message.headers.len() + 5);
            for (key, value) in &letter.message.headers {
                headers = headers.insert(Header { key, value: value.as_ref() });
            }
            for (key, value) in &letter.headers(&self.source) {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            let mut record: FutureRecord<'_, [u8], [u8]> =
                FutureRecord::to(&self.topic).partition(letter.partition % self.partitions).headers(headers);
            record.key = letter.message.key.as_deref();
            record.payload = letter.message.value.as_deref();
            self.producer.send(record, QUEUE_PATIENCE).await.map_err(|(error, _)| error)
        });
        try_join_all(sent).await.map(drop)
    }
}

/// How many partitions a topic has; none if it is not there.
fn partitions(client: &FutureProducer, topic: &str) -> KafkaResult<i32> {
    let metadata = client.client().fetch_metadata(Some(topic), PATIENCE)?;
    let count: usize = metadata.topics().iter().map(|topic| topic.partitions().len()).sum();
    Ok(i32::try_from(count).unwrap_or(i32::MAX))
}

async fn make(config: &ClientConfig, topic: &str, partitions: i32) -> KafkaResult<()> {
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    // As many copies as the cluster gives a topic that asks for none.
    let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(-1))
        .set("retention.ms", RETENTION_MILLIS)
        .set("max.message.bytes", LARGEST_BYTES);
    let made = admin.create_topics(&[new], &AdminOptions::new().operation_timeout(Some(PATIENCE))).await?;
    match made.into_iter().next() {
        // Another replica may have been faster.
        None | Some(Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Ok(()),
        Some(Err((_, code))) => Err(KafkaError::AdminOp(code)),
    }
}
