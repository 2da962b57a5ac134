//! The loop of every consumer: next, handle, commit. What cannot be read goes to the topic's dead-letter queue, with the cause.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use prost::{Message, Name};
use tidemill_chassis::{Fault, Task};
use tidemill_eventlog::{Delivery, Log, Subscription};
use tidemill_proto::topics::dead_letter;
use tokio_util::sync::CancellationToken;

/// Wait before a failed delivery comes again: doubled at each attempt, at most this.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What a handler has to leave in after a stop was asked for; less than `server.shutdown_grace_seconds`.
const STOP_GRACE: Duration = Duration::from_secs(6);

/// What handles the events of one topic.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// The payload.
    type Payload: Message + Name + Default;
    /// Makes the event's effect durable; must be idempotent on the event's id. A transient fault brings the event again, any other
    /// sends it to the dead-letter queue. Once `stop` is cancelled it has a few seconds to leave, with a transient fault if it has
    /// not finished; then it is dropped, and the event comes again at the next start.
    async fn handle(&self, incoming: Incoming<Self::Payload>) -> Result<(), Fault>;
}

/// An event that arrived.
pub struct Incoming<P> {
    /// Its id.
    pub event_id: String,
    /// How often it was tried since the process started, from 1.
    pub attempt: u32,
    /// What it carries.
    pub payload: P,
    /// Cancelled when the process stops.
    pub stop: CancellationToken,
}

/// `members` members of `group`, each handling one event at a time.
pub fn task<H: Handler>(
    name: &'static str,
    log: Arc<dyn Log>,
    topic: &'static str,
    group: String,
    members: usize,
    handler: Arc<H>,
) -> Task {
    Task::new(name, move |stop| run(log, topic, group, members, handler, stop))
}

/// The work of [`task`].
pub(crate) async fn run<H: Handler>(
    log: Arc<dyn Log>,
    topic: &'static str,
    group: String,
    members: usize,
    handler: Arc<H>,
    stop: CancellationToken,
) {
    let member = || consume(log.clone(), topic, group.clone(), handler.clone(), stop.clone());
    futures::future::join_all((0..members).map(|_| member())).await;
}

async fn consume<H: Handler>(
    log: Arc<dyn Log>,
    topic: &'static str,
    group: String,
    handler: Arc<H>,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let lost = match log.subscribe(&[topic], &group).await {
            Ok(mut subscription) => follow(&*log, &mut *subscription, &*handler, &stop).await,
            Err(error) => Err(error),
        };
        if let Err(error) = lost {
            tracing::warn!(%error, topic, group, "subscription lost; subscribing again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

async fn follow<H: Handler>(
    log: &dyn Log,
    subscription: &mut dyn Subscription,
    handler: &H,
    stop: &CancellationToken,
) -> Result<(), tidemill_eventlog::Error> {
    loop {
        let delivery = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            delivery = subscription.next() => delivery?,
        };
        let event = &delivery.event;
        let payload = (event.event_type == H::Payload::full_name())
            .then(|| H::Payload::decode(event.payload.clone()))
            .ok_or_else(|| format!("type {} instead of {}", event.event_type, H::Payload::full_name()))
            .and_then(|decoded| decoded.map_err(|error| error.to_string()));
        let payload = match payload {
            Ok(payload) => payload,
            Err(cause) => {
                bury(log, &delivery, &cause).await?;
                subscription.commit(&delivery).await?;
                continue;
            }
        };
        let incoming = Incoming { event_id: event.id.clone(), attempt: delivery.attempt, payload, stop: stop.clone() };
        let too_long = async {
            stop.cancelled().await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        let handled = tokio::select! {
            biased;
            handled = handler.handle(incoming) => handled,
            () = too_long => return Ok(()),
        };
        match handled {
            Ok(()) => subscription.commit(&delivery).await?,
            Err(_) if stop.is_cancelled() => return Ok(()),
            Err(fault) if fault.is_transient() => {
                let wait = LONGEST_WAIT.min(Duration::from_millis(100 << delivery.attempt.min(10)));
                tracing::warn!(topic = event.topic, key = event.key, attempt = delivery.attempt, error = %fault, "event will come again");
                subscription.release(&delivery, wait).await?;
            }
            Err(fault) => {
                bury(log, &delivery, &fault.to_string()).await?;
                subscription.commit(&delivery).await?;
            }
        }
    }
}

/// Appends a delivery, as it is, to the dead-letter queue. Its id stays, so burying twice keeps one.
async fn bury(log: &dyn Log, delivery: &Delivery, cause: &str) -> Result<(), tidemill_eventlog::Error> {
    let mut event = delivery.event.clone();
    tracing::error!(
        topic = event.topic,
        key = event.key,
        event = event.id,
        cause,
        "event goes to the dead-letter queue"
    );
    event.headers.push(("tidemill-cause".to_owned(), cause.to_owned()));
    event.headers.push(("tidemill-topic".to_owned(), event.topic.clone()));
    event.headers.push(("tidemill-partition".to_owned(), delivery.partition.to_string()));
    event.headers.push(("tidemill-offset".to_owned(), delivery.offset.to_string()));
    event.topic = dead_letter(&event.topic);
    log.append(vec![event]).await
}
