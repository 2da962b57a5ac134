//! One member of a source's group: the thread that reads, and what it does with news. The work itself is done by partition.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemill_artifacts::Artifacts;
use tidemill_eventlog::reader::{News, Reader, Topic};
use tidemill_proto::ingestion::v1::TopicCursor;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::partition::{Arrival, Note, Partition};
use super::store::Store;
use super::{Cut, Decoder};
use crate::error::Error;

/// How long to wait for messages before looking at notes and the stop.
const WAIT: Duration = Duration::from_millis(100);
/// Batches that wait for a partition's work. Then the thread waits, and librdkafka's queue fills, and then it fetches no more.
const WAITING: usize = 2;
/// How often the lag is told.
const TELL: Duration = Duration::from_secs(1);

/// Follows one source in this process.
pub(super) struct Follower {
    pub(super) topic: Arc<dyn Topic>,
    pub(super) decoder: Arc<Decoder>,
    pub(super) source: String,
    pub(super) store: Store,
    pub(super) artifacts: Artifacts,
    pub(super) cut: Cut,
    pub(super) stop: CancellationToken,
}

impl Follower {
    /// Reads until the process stops.
    pub(super) async fn run(self) -> Result<(), Error> {
        let handle = Handle::current();
        let reading = tokio::task::spawn_blocking(move || {
            let reader = self.topic.join()?;
            tracing::info!(source = self.source, topic = self.topic.name(), group = self.topic.group(), "following");
            let (tell, notes) = mpsc::unbounded_channel();
            let mut member = Member { follower: &self, reader, at_work: HashMap::new(), tell, notes, handle };
            member.read()
        });
        reading.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}

struct Member<'a> {
    follower: &'a Follower,
    reader: Box<dyn Reader>,
    at_work: HashMap<i32, AtWork>,
    tell: mpsc::UnboundedSender<Note>,
    notes: mpsc::UnboundedReceiver<Note>,
    handle: Handle,
}

/// A partition at work. Dropping it ends the work.
struct AtWork {
    arrivals: mpsc::Sender<Arrival>,
    _task: AbortOnDropHandle<()>,
}

impl Member<'_> {
    fn read(&mut self) -> Result<(), Error> {
        let (topic, group) = (self.follower.topic.name().to_owned(), self.follower.topic.group().to_owned());
        let lag = metrics::gauge!("tidemill_consumer_lag", "topic" => topic, "group" => group);
        let mut told = Instant::now();
        while !self.follower.stop.is_cancelled() {
            self.heed_notes()?;
            match self.reader.next(WAIT)? {
                News::Assigned(partitions) => self.begin(&partitions)?,
                News::Revoked(partitions) => {
                    tracing::info!(source = self.follower.source, ?partitions, "partitions go to others");
                    self.at_work.retain(|partition, _| !partitions.contains(partition));
                }
                News::Passed(partitions) => {
                    partitions
                        .into_iter()
                        .for_each(|(partition, offset)| self.give(partition, Arrival::Passed(offset)));
                }
                News::Messages(batches) => {
                    for (partition, messages) in batches {
                        self.give(partition, Arrival::Messages(messages));
                    }
                }
            }
            if told.elapsed() > TELL {
                told = Instant::now();
                lag.set(self.reader.lag() as f64);
            }
        }
        Ok(())
    }

    fn give(&self, partition: i32, arrival: Arrival) {
        let Some(at_work) = self.at_work.get(&partition) else { return };
        // Work that has ended has left a note that says so.
        let _ended = at_work.arrivals.blocking_send(arrival);
    }

    fn heed_notes(&mut self) -> Result<(), Error> {
        let (mut moved, mut lost) = (Vec::new(), Vec::new());
        while let Ok(note) = self.notes.try_recv() {
            match note {
                Note::Moved(partition, offset) => moved.push((partition, offset)),
                Note::Lost(partition) if self.at_work.contains_key(&partition) => lost.push(partition),
                Note::Lost(_) => {}
            }
        }
        if !moved.is_empty()
            && let Err(error) = self.reader.commit(&moved)
        {
            // Nobody begins there: it is for those who look at lag.
            tracing::debug!(%error, "the group cannot be told now");
        }
        if lost.is_empty() { Ok(()) } else { self.begin(&lost) }
    }

    /// Begins partitions where their cursors are.
    fn begin(&mut self, partitions: &[i32]) -> Result<(), Error> {
        let mut at = Vec::new();
        for &partition in partitions {
            // Whatever is still under way for it ends first.
            self.at_work.remove(&partition);
            let Some(cursor) = self.cursor(partition)? else { return Ok(()) };
            at.push((partition, cursor.next_offset));
            self.set_to_work(partition, cursor);
        }
        tracing::info!(source = self.follower.source, ?at, "partitions begin");
        Ok(self.reader.start(&at)?)
    }

    fn set_to_work(&mut self, number: i32, cursor: TopicCursor) {
        let (arrivals, arriving) = mpsc::channel(WAITING);
        let follower = self.follower;
        let partition = Partition {
            topic: follower.topic.clone(),
            decoder: follower.decoder.clone(),
            store: follower.store.clone(),
            artifacts: follower.artifacts.clone(),
            cut: follower.cut,
            number,
        };
        let work = partition.run(cursor, arriving, self.tell.clone());
        let stopped = follower.stop.clone().cancelled_owned();
        let task = self.handle.spawn(async move {
            // Dropping the work closes its channel, so that the thread that reads is not left waiting.
            tokio::select! {
                () = stopped => {}
                () = work => {}
            }
        });
        self.at_work.insert(number, AtWork { arrivals, _task: AbortOnDropHandle::new(task) });
    }

    /// A partition's cursor, waited for while the store is away; none if the process stops meanwhile.
    fn cursor(&self, partition: i32) -> Result<Option<TopicCursor>, Error> {
        let Follower { store, source, stop, .. } = self.follower;
        self.handle.block_on(async {
            loop {
                match store.cursor(source, partition).await.map_err(Error::from) {
                    Err(error) if error.is_transient() => tracing::warn!(source, %error, "a cursor cannot be read now"),
                    found => return found.map(Some),
                }
                tokio::select! {
                    () = stop.cancelled() => return Ok(None),
                    () = tokio::time::sleep(Duration::from_secs(1)) => {}
                }
            }
        })
    }
}
