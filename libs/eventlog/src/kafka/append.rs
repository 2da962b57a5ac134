//! Appends events once: what the topic holds already, or what is on its way there, is not sent again.
//!
//! The producer is idempotent, never gives up, and keeps what it was given in order. So an append that ran out of time goes on
//! behind the scenes, and the same event again joins it. What other processes appended is found by looking at the topic's end
//! before sending; this is exact as long as they do not append at this very moment.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::channel::oneshot;
use futures::future::{FutureExt, Shared};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};

use super::known::{Fate, Known, Reports, Ticket};
use super::tail::Tail;
use super::topics::Topics;
use super::{Answer, lock, record};
use crate::Event;

/// The fates of the events of one append.
pub(super) type Fates = Vec<Shared<oneshot::Receiver<Fate>>>;

pub(super) struct Appender {
    config: ClientConfig,
    prefix: String,
    topics: Arc<Topics>,
    known: Arc<Mutex<Known>>,
    /// Held while an append looks and sends, so that one follows the other.
    clients: Mutex<Clients>,
}

struct Clients {
    producer: ThreadedProducer<Reports>,
    tail: Tail,
}

impl Appender {
    /// Contacts nobody yet.
    pub(super) fn new(config: ClientConfig, prefix: &str, topics: Arc<Topics>) -> Answer<Appender> {
        let known = Arc::default();
        let clients = clients(&config, prefix, &known)?;
        Ok(Appender { config, prefix: prefix.to_owned(), topics, known, clients: Mutex::new(clients) })
    }

    /// Sends what is not there yet. Blocks, until `deadline` at most.
    pub(super) fn send(&self, events: &[Event], deadline: Instant) -> Answer<Fates> {
        let mut clients = lock(&self.clients);
        if let Some((code, reason)) = clients.producer.client().fatal_error() {
            tracing::warn!(%code, reason, "the producer cannot go on; starting another");
            // What was on its way has failed, and what of it is there will be found by looking.
            *clients = self::clients(&self.config, &self.prefix, &self.known)?;
        }
        let mut seen: Vec<&str> = Vec::new();
        for event in events {
            if !seen.contains(&event.topic.as_str()) {
                seen.push(&event.topic);
                self.look(&clients, &event.topic, deadline)?;
            }
        }
        events.iter().filter_map(|event| self.send_one(&clients.producer, event).transpose()).collect()
    }

    /// Learns what others appended to a topic since the last look.
    fn look(&self, clients: &Clients, topic: &str, deadline: Instant) -> Answer<()> {
        let partitions = self.topics.ensure(clients.producer.client(), topic, deadline)?;
        let name = self.topics.real_name(topic);
        // The place first, then the ends: what of ours is acknowledged in between is looked at again, at worst.
        let looked = lock(&self.known).entry(name.clone()).or_default().looked.clone();
        let ends = clients.tail.ends(&name, partitions, deadline).inspect_err(|_| self.topics.forget(&name))?;
        let ids = clients.tail.ids(&name, looked.as_deref(), &ends, deadline)?;
        let mut known = lock(&self.known);
        let known = known.entry(name).or_default();
        ids.into_iter().for_each(|id| known.remember(id));
        let acknowledged = known.looked.take().unwrap_or_default();
        let furthest =
            |(partition, end): (usize, i64)| acknowledged.get(partition).map_or(end, |known| end.max(*known));
        known.looked = Some(ends.into_iter().enumerate().map(furthest).collect());
        Ok(())
    }

    /// The fate of an event that is sent, or on its way; none if it is there.
    fn send_one(
        &self,
        producer: &ThreadedProducer<Reports>,
        event: &Event,
    ) -> Answer<Option<Shared<oneshot::Receiver<Fate>>>> {
        let name = self.topics.real_name(&event.topic);
        let (sender, receiver) = oneshot::channel();
        let receiver = receiver.shared();
        {
            let mut known = lock(&self.known);
            let known = known.entry(name.clone()).or_default();
            if known.holds(&event.id) {
                return Ok(None);
            }
            if let Some(fate) = known.on_the_way(&event.id) {
                return Ok(Some(fate));
            }
            known.sent(&event.id, receiver.clone());
        }
        let ticket = Ticket { topic: name.clone(), id: event.id.clone(), fate: sender };
        let record = BaseRecord::with_opaque_to(&name, Box::new(ticket))
            .key(event.key.as_str())
            .payload(&event.payload[..])
            .headers(record::headers(event));
        if let Err((error, _)) = producer.send(record) {
            if let Some(known) = lock(&self.known).get_mut(&name) {
                known.not_sent(&event.id);
            }
            return Err(error.into());
        }
        Ok(Some(receiver))
    }
}

fn clients(config: &ClientConfig, prefix: &str, known: &Arc<Mutex<Known>>) -> Answer<Clients> {
    let producer = config
        .clone()
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // Never: who waits has a deadline of his own, and may ask again.
        .set("message.timeout.ms", "0")
        // The partitioner of the Java client, so that producers of other languages agree where a key lives.
        .set("partitioner", "murmur2_random")
        .set("linger.ms", "1")
        .create_with_context(Reports(known.clone()))?;
    Ok(Clients { producer, tail: Tail::new(config, prefix)? })
}
