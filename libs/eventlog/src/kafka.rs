//! The adapter for Apache Kafka: `kafka://b1:9092,b2:9092?topic_prefix=…&replication_factor=…` and the parameters of [`address`].
//!
//! The prefix stands before the names of topics and groups, so that several installations share a cluster. To connect waits for
//! nobody: while the brokers are away, also at start, each call says so after a while, and the first one after they are back succeeds.

pub(crate) mod address;
mod append;
mod context;
mod known;
mod lag;
mod lanes;
mod member;
mod membership;
mod record;
mod tail;
mod topics;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::{Error, Event, Log, Result, Subscription};
use address::{Address, SESSION_MILLIS};
use append::Appender;
use lag::Lag;
use lanes::Attempts;
use member::Member;
use membership::Membership;
use topics::Topics;

/// How long a call waits for the cluster before it says that it is away; enough to create the topics of an append, too.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a part of the adapter has to say: its result, or why there is none.
type Answer<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

pub(crate) struct KafkaLog {
    inner: Arc<Inner>,
    url: String,
}

struct Inner {
    config: ClientConfig,
    topics: Arc<Topics>,
    appender: Appender,
    attempts: Arc<Attempts>,
    lag: Arc<Lag>,
}

impl KafkaLog {
    /// Reads the URL and the files that it names; contacts nobody.
    pub(crate) async fn connect(url: &str) -> Result<KafkaLog> {
        let url = url.to_owned();
        blocking(move || {
            let address = Address::parse(&url, &["topic_prefix", "replication_factor"])?;
            if !address.path.is_empty() {
                return Err(address.wrong("there is no path: topics are named by whoever uses the log".to_owned()));
            }
            let prefix = address.parameter("topic_prefix").unwrap_or_default();
            let replication = match address.parameter("replication_factor") {
                // The broker's own default.
                None | Some("") => -1,
                Some(text) => text.parse().ok().filter(|copies| (1..=100).contains(copies)).ok_or_else(|| {
                    address
                        .wrong(format!("replication_factor={text} is no number of copies; use 3, or 1 for one broker"))
                })?,
            };
            let topics = Arc::new(Topics::new(address.config.clone(), prefix, replication));
            let appender = Appender::new(address.config.clone(), prefix, topics.clone())
                .map_err(|reason| address.wrong(reason.to_string()))?;
            let inner =
                Inner { config: address.config, topics, appender, attempts: Arc::default(), lag: Arc::default() };
            Ok(KafkaLog { inner: Arc::new(inner), url: address.masked })
        })
        .await
    }

    fn unavailable(&self, reason: String) -> Error {
        Error::Unavailable { url: self.url.clone(), reason }
    }
}

#[async_trait]
impl Log for KafkaLog {
    async fn append(&self, events: Vec<Event>) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let inner = self.inner.clone();
        let append = async {
            for fate in blocking(move || inner.appender.send(&events, deadline)).await? {
                fate.await??;
            }
            Answer::Ok(())
        };
        match tokio::time::timeout_at(deadline.into(), append).await {
            Ok(appended) => appended.map_err(|reason| self.unavailable(reason.to_string())),
            Err(_) => Err(self.unavailable(too_late())),
        }
    }

    async fn subscribe(&self, topics: &[&str], group: &str) -> Result<Box<dyn Subscription>> {
        let deadline = Instant::now() + PATIENCE;
        let (inner, url) = (self.inner.clone(), self.url.clone());
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        let group = group.to_owned();
        let member = blocking(move || inner.join(&topics, &group, &url, deadline)).await;
        let member = member.map_err(|reason| self.unavailable(reason.to_string()))?;
        member.joined().await?;
        Ok(Box::new(member))
    }
}

impl Inner {
    /// Asks to be a member of a group. Blocks, until `deadline` at most.
    fn join(&self, topics: &[String], group: &str, url: &str, deadline: Instant) -> Answer<Member> {
        let membership = Membership::new(group, self.topics.clone(), self.attempts.clone(), self.lag.clone());
        let consumer: BaseConsumer<Membership> = self
            .config
            .clone()
            .set("group.id", self.topics.real_name(group))
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("session.timeout.ms", SESSION_MILLIS)
            .set("heartbeat.interval.ms", "2000")
            // So that a commit is not kept for long where the broker is away.
            .set("coordinator.query.interval.ms", "3000")
            // A topic that was created again, or got partitions, is noticed.
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("queued.max.messages.kbytes", "4096")
            .set("statistics.interval.ms", "5000")
            .create_with_context(membership)?;
        for topic in topics {
            self.topics.ensure(consumer.client(), topic, deadline)?;
        }
        let names: Vec<String> = topics.iter().map(|topic| self.topics.real_name(topic)).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        consumer.subscribe(&names)?;
        Ok(Member::start(consumer, url)?)
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        // Closing clients takes a moment, which is not to be one of the runtime's threads.
        let inner = self.inner.clone();
        std::thread::spawn(move || drop(inner));
    }
}

/// What is left until a deadline.
fn remaining(deadline: Instant) -> Answer<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    // librdkafka counts in milliseconds, and takes 0 for not waiting at all.
    if left < Duration::from_millis(1) { Err(too_late().into()) } else { Ok(left) }
}

fn too_late() -> String {
    format!("no answer within {} s", PATIENCE.as_secs())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is guarded is changed in steps that each leave it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down: nobody will look at the result.
            Err(_) => std::future::pending().await,
        },
    }
}

#[cfg(test)]
mod tests;
