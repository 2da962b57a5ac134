//! What a topic is known to hold: a bounded memory of ids, how far the topic was looked at, and what is on its way there.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};

use futures::channel::oneshot;
use futures::future::Shared;
use rdkafka::ClientContext;
use rdkafka::Message;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{DeliveryResult, ProducerContext};

use super::{context, lock};

/// Ids that are remembered of a topic.
const MEMORY: usize = 16_384;

/// How a record fared: appended, or why not.
pub(super) type Fate = Result<(), String>;

/// Known of each topic, by the name that the broker has for it.
pub(super) type Known = HashMap<String, Topic>;

#[derive(Default)]
pub(super) struct Topic {
    /// By partition, the first offset that was not looked at yet; none before the first look.
    pub(super) looked: Option<Vec<i64>>,
    ids: HashSet<String>,
    oldest: VecDeque<String>,
    on_the_way: HashMap<String, Shared<oneshot::Receiver<Fate>>>,
}

impl Topic {
    pub(super) fn holds(&self, id: &str) -> bool {
        self.ids.contains(id)
    }

    /// The fate of a record with this id that was sent and is not acknowledged yet.
    pub(super) fn on_the_way(&self, id: &str) -> Option<Shared<oneshot::Receiver<Fate>>> {
        self.on_the_way.get(id).cloned()
    }

    pub(super) fn sent(&mut self, id: &str, fate: Shared<oneshot::Receiver<Fate>>) {
        self.on_the_way.insert(id.to_owned(), fate);
    }

    pub(super) fn not_sent(&mut self, id: &str) {
        self.on_the_way.remove(id);
    }

    pub(super) fn remember(&mut self, id: String) {
        if self.ids.insert(id.clone()) {
            self.oldest.push_back(id);
        }
        while self.oldest.len() > MEMORY {
            if let Some(id) = self.oldest.pop_front() {
                self.ids.remove(&id);
            }
        }
    }

    /// One of ours is there: no need to look at it, where nobody else wrote before it.
    fn appended(&mut self, id: &str, partition: i32, offset: i64) {
        self.remember(id.to_owned());
        let looked = self.looked.as_mut().and_then(|looked| looked.get_mut(partition as usize));
        if let Some(next) = looked.filter(|next| **next == offset) {
            *next += 1;
        }
    }
}

/// Goes with a record to the broker.
pub(super) struct Ticket {
    pub(super) topic: String,
    pub(super) id: String,
    pub(super) fate: oneshot::Sender<Fate>,
}

/// Hears from the producer how records fared.
pub(super) struct Reports(pub(super) Arc<Mutex<Known>>);

impl ClientContext for Reports {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        context::failed(&error, reason);
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Box<Ticket>) {
        let Ticket { topic, id, fate } = *ticket;
        let outcome = {
            let mut known = lock(&self.0);
            let topic = known.entry(topic).or_default();
            topic.not_sent(&id);
            match result {
                Ok(message) => {
                    topic.appended(&id, message.partition(), message.offset());
                    Ok(())
                }
                Err((error, _)) => Err(error.to_string()),
            }
        };
        // Nobody may be waiting any more: the append was given up.
        let _ = fate.send(outcome);
    }
}
