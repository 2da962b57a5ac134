//! A member of a group. A thread of its own polls the broker, so that the member stays one however long an event takes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::time::Instant;

use super::lanes::{Next, Place};
use super::membership::Membership;
use super::{PATIENCE, blocking, lock};
use crate::{Delivery, Error, Result, Subscription};

/// The longest delay of a release, so that adding it to the clock cannot overflow.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Wait before a commit that the broker refused is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// How long a new member waits for partitions, once it is in the group: all may be taken.
const SHARE: Duration = Duration::from_secs(3);

/// How long a new member waits to be let in: brokers give a new group 3 s, and busy members a few more.
const ADMISSION: Duration = Duration::from_secs(20);

pub(super) struct Member {
    /// Taken when the member leaves.
    consumer: Option<Arc<BaseConsumer<Membership>>>,
    membership: Arc<Membership>,
    url: String,
}

impl Member {
    /// Starts the thread that polls.
    pub(super) fn start(consumer: BaseConsumer<Membership>, url: &str) -> std::io::Result<Member> {
        let membership = consumer.context().clone();
        let consumer = Arc::new(consumer);
        let (polled, of) = (consumer.clone(), membership.clone());
        std::thread::Builder::new().name("kafka member".to_owned()).spawn(move || of.poll(polled))?;
        Ok(Member { consumer: Some(consumer), membership, url: url.to_owned() })
    }

    /// Waits until the group has let us in, and given us a share of the partitions if there is one.
    pub(super) async fn joined(&self) -> Result<()> {
        let admitted = async {
            loop {
                let news = self.membership.news.notified();
                if self.membership.shares.load(Ordering::SeqCst) > 0 {
                    break;
                }
                news.await;
            }
        };
        if tokio::time::timeout(ADMISSION, admitted).await.is_err() {
            let reason = format!("the group {} lets no member in; is its broker up?", self.membership.group);
            return Err(Error::Unavailable { url: self.url.clone(), reason });
        }
        let has_share = async {
            loop {
                let news = self.membership.news.notified();
                if !lock(&self.membership.lanes).is_empty() {
                    break;
                }
                news.await;
            }
        };
        // Without a share this member is a spare: it gets one when another leaves.
        let _ = tokio::time::timeout(SHARE, has_share).await;
        Ok(())
    }

    fn unavailable(&self, reason: String) -> Error {
        Error::Unavailable { url: self.url.clone(), reason }
    }
}

#[async_trait]
impl Subscription for Member {
    async fn next(&mut self) -> Result<Delivery> {
        loop {
            let news = self.membership.news.notified();
            let next = lock(&self.membership.lanes).claim(&self.membership.group, &self.membership.attempts);
            match next {
                Next::Delivery(delivery) => return Ok(*delivery),
                Next::Nothing => {
                    if let Some(reason) = lock(&self.membership.lost).clone() {
                        return Err(self.unavailable(reason));
                    }
                    news.await;
                }
                Next::At(instant) => {
                    // Whichever comes first, look again.
                    let _ = tokio::time::timeout_at(instant, news).await;
                }
            }
        }
    }

    async fn commit(&mut self, delivery: &Delivery) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let place = place(delivery);
        let Some(consumer) = &self.consumer else { return Ok(()) };
        while lock(&self.membership.lanes).is_held(&place, delivery.offset)? {
            let mut offsets = TopicPartitionList::new();
            let topic = self.membership.topics.real_name(&place.0);
            offsets
                .add_partition_offset(&topic, place.1, Offset::Offset(delivery.offset + 1))
                .map_err(|error| self.unavailable(error.to_string()))?;
            let consumer = consumer.clone();
            let commit = blocking(move || consumer.commit(&offsets, CommitMode::Sync));
            let refused = match tokio::time::timeout_at(deadline, commit).await {
                Ok(Ok(())) => {
                    lock(&self.membership.lanes).committed(&place, delivery.offset);
                    self.membership.news.notify_waiters();
                    return Ok(());
                }
                // In the middle of a rebalance the broker refuses. Either the partition is ours after it, and the next try
                // succeeds, or it is not, and the loop ends.
                Ok(Err(error)) => error.to_string(),
                Err(_) => format!("no answer to a commit within {} s", PATIENCE.as_secs()),
            };
            if Instant::now() + PAUSE >= deadline {
                return Err(self.unavailable(refused));
            }
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn release(&mut self, delivery: &Delivery, delay: Duration) -> Result<()> {
        let place = place(delivery);
        let mut lanes = lock(&self.membership.lanes);
        if lanes.is_held(&place, delivery.offset)? {
            lanes.release(&place, Instant::now() + delay.min(LONGEST));
            self.membership.news.notify_waiters();
        }
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.membership.leaving.store(true, Ordering::SeqCst);
        if let Some(consumer) = self.consumer.take() {
            // Leaving takes a moment, which is not to be one of the runtime's threads. The polling thread wakes up from it, and
            // would end without it too, at its next look.
            let leave = move || consumer.unsubscribe();
            let _ = std::thread::Builder::new().name("kafka leave".to_owned()).spawn(leave);
        }
    }
}

fn place(delivery: &Delivery) -> Place {
    (delivery.event.topic.clone(), delivery.partition as i32)
}
