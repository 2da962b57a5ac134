//! A topic of an Apache Kafka cluster.

mod dead;
mod member;

use std::time::Duration;

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use tokio::sync::OnceCell;

use super::{DeadLetter, Extent, Reader, Topic};
use crate::kafka::address::Address;
use crate::{Error, Result};

/// How long a question to the cluster may take.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct KafkaTopic {
    config: ClientConfig,
    /// Without parameters, for errors.
    url: String,
    name: String,
    group: String,
    dead: OnceCell<dead::Producer>,
}

impl KafkaTopic {
    pub(super) fn open(url: &str, group: &str) -> Result<KafkaTopic> {
        let address = Address::parse(url, &["group_id"])?;
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        if address.path.is_empty() || address.path.len() > 245 || !address.path.chars().all(legal) {
            return Err(address.wrong("name the topic behind the servers: kafka://b1:9092/topic".to_owned()));
        }
        let group = address.parameter("group_id").unwrap_or(group).to_owned();
        Ok(KafkaTopic { config: address.config, url: address.masked, name: address.path, group, dead: OnceCell::new() })
    }

    fn unavailable(&self, error: KafkaError) -> Error {
        unavailable(&self.url, error)
    }
}

#[async_trait]
impl Topic for KafkaTopic {
    fn name(&self) -> &str {
        &self.name
    }

    async fn extents(&self) -> Result<Vec<Extent>> {
        let (config, url, name) = (self.config.clone(), self.url.clone(), self.name.clone());
        let asked = tokio::task::spawn_blocking(move || {
            extents(&config, &name).and_then(|extents| match extents.len() {
                0 => Err(KafkaError::MetadataFetch(rdkafka::types::RDKafkaErrorCode::UnknownTopic)),
                _ => Ok(extents),
            })
        });
        let extents = asked.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        extents.map_err(|error| unavailable(&url, error))
    }

    fn group(&self) -> &str {
        &self.group
    }

    fn join(&self) -> Result<Box<dyn Reader>> {
        let member = member::Member::join(self.config.clone(), &self.name, &self.group);
        Ok(Box::new(member.map_err(|error| self.unavailable(error))?))
    }

    async fn bury(&self, dead: Vec<DeadLetter>) -> Result<()> {
        let producer = self.dead.get_or_try_init(|| dead::Producer::open(self.config.clone(), &self.name)).await;
        let producer = producer.map_err(|error| self.unavailable(error))?;
        producer.send(dead).await.map_err(|error| self.unavailable(error))
    }
}

fn extents(config: &ClientConfig, topic: &str) -> std::result::Result<Vec<Extent>, KafkaError> {
    let consumer: BaseConsumer = config.create()?;
    let metadata = consumer.fetch_metadata(Some(topic), PATIENCE)?;
    let mut partitions: Vec<i32> =
        metadata.topics().iter().flat_map(|topic| topic.partitions()).map(|partition| partition.id()).collect();
    partitions.sort_unstable();
    let extent = |partition| {
        let (begin, end) = consumer.fetch_watermarks(topic, partition, PATIENCE)?;
        Ok(Extent { partition, begin, end })
    };
    partitions.into_iter().map(extent).collect()
}

fn unavailable(url: &str, error: KafkaError) -> Error {
    Error::Unavailable { url: url.to_owned(), reason: error.to_string() }
}

#[cfg(test)]
mod tests;
