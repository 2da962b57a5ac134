//! Moves events from the outbox to the log: appended first, then forgotten. A crash in between appends again, and the log drops the
//! second by its id.

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

pub(crate) fn task(store: Arc<dyn Store>, log: Arc<dyn Log>) -> Task {
    Task::new("relay", move |stop| run(store, log, stop))
}

async fn run(store: Arc<dyn Store>, log: Arc<dyn Log>, stop: CancellationToken) {
    let mut committed = store.committed();
    while !stop.is_cancelled() {
        committed.mark_unchanged();
        match move_batch(&*store, &*log).await {
            Ok(0) => {
                tokio::select! {
                    () = stop.cancelled() => {}
                    _ = committed.changed() => {}
                    () = tokio::time::sleep(PAUSE) => {}
                }
            }
            Ok(_) => {}
            Err(error) => {
                metrics::counter!("tidemill_outbox_failures_total").increment(1);
                tracing::warn!(%error, "events wait in the outbox");
                tokio::time::sleep(PAUSE).await;
            }
        }
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
