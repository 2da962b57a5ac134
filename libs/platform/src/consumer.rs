//! The loop of every consumer: next, handle, commit. What cannot be read goes to the topic's dead-letter queue, with the cause.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use prost::{Message, Name};
use tidemill_chassis::telemetry::Parent;
use tidemill_chassis::{Fault, Task};
use tidemill_eventlog::{Delivery, Log, Subscription};
use tidemill_proto::topics::dead_letter;
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument, Span, info_span};

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
    Task::new(name, move |stop| run(name, log, topic, group, members, handler, stop))
}

/// The work of [`task`].
pub(crate) async fn run<H: Handler>(
    name: &'static str,
    log: Arc<dyn Log>,
    topic: &'static str,
    group: String,
    members: usize,
    handler: Arc<H>,
    stop: CancellationToken,
) {
    let told = Told { consumer: name, topic };
    let member = || consume(log.clone(), told, group.clone(), handler.clone(), stop.clone());
    futures::future::join_all((0..members).map(|_| member())).await;
}

async fn consume<H: Handler>(log: Arc<dyn Log>, told: Told, group: String, handler: Arc<H>, stop: CancellationToken) {
    let topic = told.topic;
    while !stop.is_cancelled() {
        let lost = match log.subscribe(&[topic], &group).await {
            Ok(mut subscription) => follow(&*log, told, &mut *subscription, &*handler, &stop).await,
            Err(error) => Err(error),
        };
        if let Err(error) = lost {
            told.count("tidemill_consumer_subscriptions_lost_total");
            tracing::warn!(%error, topic, group, "subscription lost; subscribing again");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}

/// Whose events these are, for metrics and spans. A group's name is no label: some are new at every start.
#[derive(Clone, Copy)]
struct Told {
    consumer: &'static str,
    topic: &'static str,
}

impl Told {
    fn count(self, counter: &'static str) {
        metrics::counter!(counter, "consumer" => self.consumer, "topic" => self.topic).increment(1);
    }

    /// The handling of an event, in the trace of whoever wrote it.
    fn span(self, delivery: &Delivery) -> Span {
        let event = &delivery.event;
        let span = info_span!(
            "event",
            otel.name = format!("process {}", self.topic),
            otel.kind = "consumer",
            otel.status_code = Empty,
            messaging.operation.type = "process",
            messaging.destination.name = self.topic,
            messaging.destination.partition.id = i64::from(delivery.partition),
            messaging.message.id = event.id,
            tidemill.event.key = event.key,
            tidemill.event.attempt = i64::from(delivery.attempt),
        );
        Parent::from_pairs(&event.headers).adopt(span)
    }
}

async fn follow<H: Handler>(
    log: &dyn Log,
    told: Told,
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
                told.count("tidemill_consumer_dead_lettered_total");
                bury(log, &delivery, &cause).await?;
                kept(subscription.commit(&delivery).await, &delivery)?;
                continue;
            }
        };
        let incoming = Incoming { event_id: event.id.clone(), attempt: delivery.attempt, payload, stop: stop.clone() };
        let (span, began) = (told.span(&delivery), Instant::now());
        let too_long = async {
            stop.cancelled().await;
            tokio::time::sleep(STOP_GRACE).await;
        };
        let handled = tokio::select! {
            biased;
            handled = handler.handle(incoming).instrument(span.clone()) => handled,
            () = too_long => return Ok(()),
        };
        if handled.is_err() {
            span.record("otel.status_code", "ERROR");
        }
        metrics::histogram!("tidemill_consumer_handling_seconds", "consumer" => told.consumer, "topic" => told.topic)
            .record(began.elapsed());
        match handled {
            Ok(()) => {
                kept(subscription.commit(&delivery).await, &delivery)?;
                told.count("tidemill_consumer_handled_total");
            }
            Err(_) if stop.is_cancelled() => return Ok(()),
            Err(fault) if fault.is_transient() => {
                told.count("tidemill_consumer_retried_total");
                let wait = LONGEST_WAIT.min(Duration::from_millis(100 << delivery.attempt.min(10)));
                tracing::warn!(topic = event.topic, key = event.key, attempt = delivery.attempt, error = %fault, "event will come again");
                kept(subscription.release(&delivery, wait).await, &delivery)?;
            }
            Err(fault) => {
                told.count("tidemill_consumer_dead_lettered_total");
                bury(log, &delivery, &fault.to_string()).await?;
                kept(subscription.commit(&delivery).await, &delivery)?;
            }
        }
    }
}

/// A delivery that went to another member meanwhile is that one's matter: this subscription goes on.
fn kept(done: tidemill_eventlog::Result<()>, delivery: &Delivery) -> tidemill_eventlog::Result<()> {
    match done {
        Err(tidemill_eventlog::Error::NotHeld { topic, offset }) => {
            tracing::info!(topic, offset, event = delivery.event.id, "the event went to another member meanwhile");
            Ok(())
        }
        other => other,
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
