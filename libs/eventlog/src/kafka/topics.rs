//! Topics come into being when they are first used: those of the table as it says, others with its default.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{Client, ClientContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use tidemill_proto::topics::Shape;

use super::context::Quiet;
use super::{Answer, lock, remaining};

/// Time between two looks at a topic that is coming into being.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct Topics {
    config: ClientConfig,
    prefix: String,
    /// Copies of every partition; -1 leaves it to the broker.
    replication: i32,
    /// Those that are there, with their partitions.
    known: Mutex<HashMap<String, i32>>,
}

impl Topics {
    pub(super) fn new(config: ClientConfig, prefix: &str, replication: i32) -> Topics {
        Topics { config, prefix: prefix.to_owned(), replication, known: Mutex::default() }
    }

    /// How the broker calls a topic of ours.
    pub(super) fn real_name(&self, topic: &str) -> String {
        format!("{}{topic}", self.prefix)
    }

    /// How we call a topic of the broker.
    pub(super) fn own_name<'a>(&self, topic: &'a str) -> &'a str {
        topic.strip_prefix(&self.prefix).unwrap_or(topic)
    }

    /// The number of partitions of a topic, which is created if it is not there. Blocks, until `deadline` at most.
    pub(super) fn ensure<C: ClientContext>(&self, client: &Client<C>, topic: &str, deadline: Instant) -> Answer<i32> {
        let name = self.real_name(topic);
        if let Some(partitions) = lock(&self.known).get(&name) {
            return Ok(*partitions);
        }
        let mut created = false;
        let partitions = loop {
            match look(client, &name, remaining(deadline)?)? {
                Found::Ready(partitions) => break partitions,
                Found::Nothing if !created => {
                    self.create(&name, Shape::of(topic), deadline)?;
                    created = true;
                }
                Found::Nothing | Found::Unready => {
                    remaining(deadline)?;
                    std::thread::sleep(PAUSE);
                }
            }
        };
        lock(&self.known).insert(name, partitions);
        Ok(partitions)
    }

    /// Looks again at the next use: the topic may have been deleted.
    pub(super) fn forget(&self, name: &str) {
        lock(&self.known).remove(name);
    }

    fn create(&self, name: &str, shape: Shape, deadline: Instant) -> Answer<()> {
        let admin: AdminClient<Quiet> = self.config.create_with_context(Quiet)?;
        let retention = (i64::from(shape.retention_days) * 86_400_000).to_string();
        let in_sync = if self.replication > 2 { "2" } else { "1" };
        let topic = NewTopic::new(name, shape.partitions, TopicReplication::Fixed(self.replication))
            .set("retention.ms", &retention)
            .set("min.insync.replicas", in_sync);
        let left = remaining(deadline)?;
        let options = AdminOptions::new().request_timeout(Some(left)).operation_timeout(Some(left));
        let results = futures::executor::block_on(admin.create_topics([&topic], &options));
        for result in results? {
            match result {
                Ok(_) => {
                    tracing::info!(topic = name, shape.partitions, shape.retention_days, "topic created");
                }
                // Somebody else was faster.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(format!("topic {name} cannot be created: {code}").into()),
            }
        }
        Ok(())
    }
}

enum Found {
    Nothing,
    /// It is there, but some partition has no leader.
    Unready,
    Ready(i32),
}

fn look<C: ClientContext>(client: &Client<C>, name: &str, timeout: Duration) -> Answer<Found> {
    let metadata = client.fetch_metadata(Some(name), timeout)?;
    let Some(topic) = metadata.topics().iter().find(|topic| topic.name() == name) else { return Ok(Found::Nothing) };
    match topic.error() {
        None => {}
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => return Ok(Found::Nothing),
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE) => return Ok(Found::Unready),
        Some(error) => return Err(format!("topic {name}: {}", RDKafkaErrorCode::from(error)).into()),
    }
    let ready = !topic.partitions().is_empty() && topic.partitions().iter().all(|partition| partition.leader() >= 0);
    Ok(if ready { Found::Ready(topic.partitions().len() as i32) } else { Found::Unready })
}
