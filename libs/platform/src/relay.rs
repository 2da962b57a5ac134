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
            }
            Ok(None) => rest(&stop, FOLLOW).await,
            Err(error) => {
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
    let Some(last) = pending.last().map(|pending| pending.sequence) else { return Ok(0) };
    let count = pending.len();
    log.append(pending.into_iter().map(to_event).collect()).await?;
    store.published(last).await?;
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
