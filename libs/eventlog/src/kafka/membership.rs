//! What a member's thread does: it polls, fills the lanes, and follows the group when partitions move.
//!
//! A partition that goes to another member while one of its events is with the caller goes a little later, so that the event is
//! committed here rather than received twice.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, RebalanceProtocol};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::Notify;

use super::lag::Lag;
use super::lanes::{Attempts, Lanes, Place};
use super::topics::Topics;
use super::{context, lock, record};

/// How long a partition stays for the event that is with the caller.
const GRACE: Duration = Duration::from_secs(5);

/// Events that wait in a lane before its partition pauses, and at which it goes on.
const MANY: usize = 256;
const FEW: usize = 64;

pub(super) struct Membership {
    pub(super) group: String,
    pub(super) topics: Arc<Topics>,
    pub(super) attempts: Arc<Attempts>,
    pub(super) lag: Arc<Lag>,
    pub(super) lanes: Mutex<Lanes>,
    /// There may be something new for whoever waits.
    pub(super) news: Notify,
    /// How often the group gave us a share, be it an empty one.
    pub(super) shares: AtomicU32,
    /// The member is to leave.
    pub(super) leaving: AtomicBool,
    /// Why the member cannot go on, if so.
    pub(super) lost: Mutex<Option<String>>,
    /// Partitions that have enough waiting here.
    paused: Mutex<HashSet<Place>>,
    /// Partitions that are to go as soon as their events are committed.
    going: Mutex<Option<(TopicPartitionList, Instant)>>,
}

impl Membership {
    pub(super) fn new(group: &str, topics: Arc<Topics>, attempts: Arc<Attempts>, lag: Arc<Lag>) -> Membership {
        Membership {
            group: group.to_owned(),
            topics,
            attempts,
            lag,
            lanes: Mutex::default(),
            news: Notify::new(),
            shares: AtomicU32::new(0),
            leaving: AtomicBool::new(false),
            lost: Mutex::new(None),
            paused: Mutex::default(),
            going: Mutex::new(None),
        }
    }

    /// Polls until the member leaves. Dropping the consumer then leaves the group.
    pub(super) fn poll(&self, consumer: Arc<BaseConsumer<Membership>>) {
        while !self.leaving.load(Ordering::SeqCst) {
            let busy = !lock(&self.paused).is_empty() || lock(&self.going).is_some();
            match consumer.poll(Duration::from_millis(if busy { 10 } else { 100 })) {
                Some(Ok(message)) => {
                    let place = (self.topics.own_name(message.topic()).to_owned(), message.partition());
                    let event = record::event(&place.0, &message);
                    let waiting = lock(&self.lanes).fetched(&place, message.offset(), event);
                    self.news.notify_waiters();
                    if waiting >= MANY && lock(&self.paused).insert(place.clone()) {
                        self.report(consumer.pause(&self.list([&place])));
                    }
                }
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => {
                    *lock(&self.lost) = Some(error.to_string());
                    self.news.notify_waiters();
                }
                // Reported by the context; the client tries again.
                Some(Err(_)) | None => {}
            }
            self.resume(&consumer, |lanes, place| lanes.waiting(place) <= FEW);
            self.let_go(&consumer, false);
        }
        self.let_go(&consumer, true);
    }

    /// Lets some of the paused partitions go on.
    fn resume(&self, consumer: &BaseConsumer<Membership>, which: impl Fn(&Lanes, &Place) -> bool) {
        let mut paused = lock(&self.paused);
        let lanes = lock(&self.lanes);
        let ready: Vec<Place> = paused.iter().filter(|place| which(&lanes, place)).cloned().collect();
        drop(lanes);
        if !ready.is_empty() {
            self.report(consumer.resume(&self.list(&ready)));
            ready.iter().for_each(|place| _ = paused.remove(place));
        }
    }

    fn list<'a>(&self, places: impl IntoIterator<Item = &'a Place>) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in places {
            list.add_partition(&self.topics.real_name(topic), *partition);
        }
        list
    }

    fn places(&self, list: &TopicPartitionList) -> Vec<Place> {
        let elements = list.elements();
        elements.iter().map(|place| (self.topics.own_name(place.topic()).to_owned(), place.partition())).collect()
    }

    fn report(&self, result: Result<(), KafkaError>) {
        if let Err(error) = result {
            tracing::warn!(%error, group = self.group, "kafka member");
        }
    }

    /// Gives away the partitions that are to go, if their events are committed, it has taken too long, or it must be now.
    fn let_go(&self, consumer: &BaseConsumer<Membership>, now: bool) {
        let mut going = lock(&self.going);
        let Some((list, deadline)) = &*going else { return };
        let places = self.places(list);
        let is_busy = {
            let lanes = lock(&self.lanes);
            places.iter().any(|place| lanes.is_held_at(place))
        };
        if now || !is_busy || Instant::now() >= *deadline {
            self.give(consumer, list, &places);
            *going = None;
        }
    }

    fn give(&self, consumer: &BaseConsumer<Membership>, list: &TopicPartitionList, places: &[Place]) {
        // The client would remember the pause, should the partition come back.
        self.resume(consumer, |_, place| places.contains(place));
        {
            let mut lanes = lock(&self.lanes);
            places.iter().for_each(|place| lanes.close(place));
        }
        places.iter().for_each(|place| self.lag.forget(&self.group, place));
        self.report(match consumer.rebalance_protocol() {
            RebalanceProtocol::Cooperative => consumer.incremental_unassign(list),
            _ => consumer.unassign(),
        });
        tracing::debug!(group = self.group, partitions = places.len(), "partitions went to others");
        self.news.notify_waiters();
    }
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        context::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        context::failed(&error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        let lanes = lock(&self.lanes);
        for place in lanes.places() {
            let topic = statistics.topics.get(&self.topics.real_name(&place.0));
            let end = topic.and_then(|topic| topic.partitions.get(&place.1)).map(|known| known.hi_offset);
            // Negative where the client does not know yet. Where nothing was fetched there is nothing to do.
            if let Some(end) = end.filter(|end| *end >= 0) {
                let lag = end - lanes.uncommitted(place).unwrap_or(end);
                self.lag.set(&self.group, place, lag.max(0));
            }
        }
    }
}

impl ConsumerContext for Membership {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let places = self.places(list);
        if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            {
                let mut lanes = lock(&self.lanes);
                places.into_iter().for_each(|place| lanes.open(place));
            }
            self.report(consumer.incremental_assign(list));
            self.shares.fetch_add(1, Ordering::SeqCst);
            self.news.notify_waiters();
            return;
        }
        // Partitions that are lost may be another's already: nothing of them can be committed here.
        if self.leaving.load(Ordering::SeqCst) || consumer.assignment_lost() {
            return self.give(consumer, list, &places);
        }
        {
            let mut lanes = lock(&self.lanes);
            places.iter().for_each(|place| lanes.leave(place));
        }
        *lock(&self.going) = Some((list.clone(), Instant::now() + GRACE));
        self.let_go(consumer, false);
    }
}
