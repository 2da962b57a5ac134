//! Moves events from the outbox to the log: appended first, then forgotten. A crash in between appends again, and the log drops the
//! second by its id. Of several replicas one does it, so that the log has the order of the commits.

use std::sync::Arc;
use std::time::Duration;

use tidemill_chassis::Task;
use tidemill_eventlog::{Event, Log};
use tidemill_resources::{Pending, Store};
use tokio_util::sync::CancellationToken;

/// Events moved at once.
const BATCH: usize = 256;
/// How long to wait after a failure, and how long at most between looks when nothing wakes us.
const PAUSE: Duration = Duration::from_millis(500);
/// How often a replica that does not lead asks whether it may.
const FOLLOW: Duration = Duration::from_secs(1);

pub(crate) fn task(store: Arc<dyn Store>, log: Arc<dyn Log>) -> Task {
    Task::new("relay", move |stop| run(store, log, stop))
}

async fn run(store: Arc<dyn Store>, log: Arc<dyn Log>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match store.lead().await {
            Ok(Some(mut leadership)) => {
                tracing::debug!("this replica relays");
                tokio::select! {
                    // Whatever is being appended is dropped at once: another may relay from now on.
                    () = leadership.lost() => tracing::warn!("another replica may relay now; this one stops"),
                    () = lead(&*store, &*log, &stop) => {}
                }
                // What waits is the next leader's to tell; else this replica would tell its last count for ever.
                metrics::gauge!("tidemill_outbox_pending").set(0.0);
            }
            Ok(None) => rest(&stop, FOLLOW).await,
            Err(error) => {
                metrics::counter!("tidemill_outbox_failures_total").increment(1);
                tracing::warn!(%error, "events wait in the outbox");
                rest(&stop, PAUSE).await;
            }
        }
    }
}

/// Relays until it is told to stop.
async fn lead(store: &dyn Store, log: &dyn Log, stop: &CancellationToken) {
    let mut committed = store.committed();
    while !stop.is_cancelled() {
        committed.mark_unchanged();
        match move_batch(store, log).await {
            Ok(0) => {
                tokio::select! {
                    () = rest(stop, PAUSE) => {}
                    _ = committed.changed() => {}
                }
            }
            Ok(_) => {}
            Err(error) => {
                metrics::counter!("tidemill_outbox_failures_total").increment(1);
                tracing::warn!(%error, "events wait in the outbox");
                rest(stop, PAUSE).await;
            }
        }
    }
}

/// Waits for a while, or until it is told to stop.
async fn rest(stop: &CancellationToken, pause: Duration) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = tokio::time::sleep(pause) => {}
    }
}

async fn move_batch(store: &dyn Store, log: &dyn Log) -> Result<usize, crate::Error> {
    let pending = store.pending(BATCH).await?;
    let waiting = metrics::gauge!("tidemill_outbox_pending");
    waiting.set(pending.len() as f64);
    let Some(last) = pending.last().map(|pending| pending.sequence) else { return Ok(0) };
    let count = pending.len();
    log.append(pending.into_iter().map(to_event).collect()).await?;
    store.published(last).await?;
    waiting.set(0.0);
    metrics::counter!("tidemill_outbox_relayed_total").increment(count as u64);
    Ok(count)
}

fn to_event(pending: Pending) -> Event {
    let event = pending.event;
    Event {
        id: event.id,
        topic: event.topic,
        key: event.key,
        event_type: event.event_type,
        time_micros: jiff::Timestamp::now().as_microsecond(),
        headers: event.headers,
        payload: event.payload,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use tidemill_eventlog::Subscription;
    use tidemill_resources::{Batch, OutboxEvent};

    use super::*;

    /// Keeps what is appended, and by how many at once.
    #[derive(Default)]
    struct Kept(Mutex<Vec<String>>);

    #[async_trait::async_trait]
    impl Log for Kept {
        async fn append(&self, events: Vec<Event>) -> tidemill_eventlog::Result<()> {
            // Lets the other relay in, if it is not kept out.
            tokio::time::sleep(Duration::from_millis(1)).await;
            self.0.lock().unwrap().extend(events.into_iter().map(|event| event.id));
            Ok(())
        }

        async fn subscribe(&self, _: &[&str], _: &str) -> tidemill_eventlog::Result<Box<dyn Subscription>> {
            unreachable!("a relay only appends")
        }
    }

    async fn commit(store: &Arc<dyn Store>, ids: std::ops::Range<usize>) {
        for id in ids {
            let event = OutboxEvent {
                id: id.to_string(),
                topic: "t".to_owned(),
                key: "k".to_owned(),
                event_type: "e".to_owned(),
                payload: Bytes::new(),
                headers: Vec::new(),
            };
            store.commit(Batch { writes: Vec::new(), events: vec![event] }).await.unwrap();
        }
    }

    async fn until_kept(log: &Kept, count: usize) {
        for _ in 0..1000 {
            if log.0.lock().unwrap().len() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} of {count} events came", log.0.lock().unwrap().len());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_two_relays_one_appends_and_the_other_goes_on_when_it_stops() {
        let store = tidemill_resources::connect("sqlite::memory:").await.unwrap();
        let log = Arc::new(Kept::default());
        let stops = [CancellationToken::new(), CancellationToken::new()];
        let relay = |stop: &CancellationToken| tokio::spawn(run(store.clone(), log.clone(), stop.clone()));
        let first = relay(&stops[0]);
        commit(&store, 0..1).await;
        until_kept(&log, 1).await;
        let second = relay(&stops[1]);
        commit(&store, 1..50).await;
        until_kept(&log, 50).await;
        stops[0].cancel();
        first.await.unwrap();
        commit(&store, 50..100).await;
        until_kept(&log, 100).await;
        stops[1].cancel();
        second.await.unwrap();
        let expected: Vec<String> = (0..100).map(|id| id.to_string()).collect();
        assert_eq!(*log.0.lock().unwrap(), expected);
    }
}
