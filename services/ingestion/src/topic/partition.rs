//! The work on one partition: messages in, segments out, the cursor moved with each.

use std::sync::Arc;
use std::time::Duration;

use tidemill_artifacts::Artifacts;
use tidemill_eventlog::reader::{Message, Topic};
use tidemill_proto::ingestion::v1::{TopicCursor, TopicSegment};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::segment::Segment;
use super::store::Store;
use super::{Cut, Decoder};
use crate::error::Error;

/// Longest wait between attempts at something that is away.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// What the thread that reads is told.
#[derive(Debug, PartialEq)]
pub(super) enum Note {
    /// The partition's cursor has moved to this offset.
    Moved(i32, i64),
    /// The cursor is another than was read: begin again where it is now.
    Lost(i32),
}

/// What the thread that reads gives.
#[derive(Debug)]
pub(super) enum Arrival {
    /// Messages, in order.
    Messages(Vec<Message>),
    /// There is nothing more below this offset.
    Passed(i64),
}

/// Collects one partition, from where its cursor was.
pub(super) struct Partition {
    pub(super) topic: Arc<dyn Topic>,
    pub(super) decoder: Arc<Decoder>,
    pub(super) store: Store,
    pub(super) artifacts: Artifacts,
    pub(super) cut: Cut,
    pub(super) number: i32,
}

impl Partition {
    /// Works until no more messages can come, or the cursor is found moved. A segment that was not cut by then is dropped: whoever has
    /// the partition next reads its messages again.
    pub(super) async fn run(
        self,
        mut cursor: TopicCursor,
        mut arrivals: mpsc::Receiver<Arrival>,
        tell: mpsc::UnboundedSender<Note>,
    ) {
        let this = Arc::new(self);
        let mut segment = Segment::new(cursor.next_offset);
        let mut due = None;
        loop {
            let arrived = tokio::select! {
                arrived = arrivals.recv() => match arrived {
                    Some(arrived) => Some(arrived),
                    None => return,
                },
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => None,
            };
            due = due.or_else(|| Some(Instant::now() + this.cut.age));
            match arrived {
                Some(Arrival::Messages(messages)) => {
                    let adding = this.clone();
                    segment = blocking(move || adding.add(segment, messages)).await;
                }
                Some(Arrival::Passed(offset)) => segment.end = segment.end.max(offset),
                None => {}
            }
            if segment.is_empty() {
                due = None;
            } else if segment.bytes >= this.cut.bytes || due.is_some_and(|due| due <= Instant::now()) {
                let end = segment.end;
                match this.store_segment(segment, &cursor).await {
                    Ok(moved) => cursor = moved,
                    Err(error) => {
                        tracing::warn!(cursor = cursor.name, %error, "a segment is dropped, and read again from the cursor");
                        // Nobody listens when the member has left.
                        let _left = tell.send(Note::Lost(this.number));
                        return;
                    }
                }
                let _left = tell.send(Note::Moved(this.number, end));
                segment = Segment::new(end);
                due = None;
            }
        }
    }

    fn add(&self, mut segment: Segment, messages: Vec<Message>) -> Segment {
        let session = self.decoder.session();
        for message in messages {
            segment.add(&session, self.topic.name(), self.number, message);
        }
        segment
    }

    /// Dead letters first, then the blobs, then segment and cursor in one transaction: dying in between leaves a dead letter that will
    /// come again under the same id, or a blob that nothing names.
    async fn store_segment(&self, segment: Segment, cursor: &TopicCursor) -> Result<TopicCursor, Error> {
        let (begin_offset, end_offset) = (segment.begin, segment.end);
        let sealed = blocking(move || segment.seal()).await?;
        let (topic, artifacts, store) = (&*self.topic, &self.artifacts, &self.store);
        if !sealed.dead.is_empty() {
            let dead = &sealed.dead;
            persist("dead letters", move || async move { Ok(topic.bury(dead.clone()).await?) }).await?;
        }
        let mut digests = [String::new(), String::new()];
        for (digest, shard) in digests.iter_mut().zip([&sealed.records, &sealed.refused]) {
            let Some(shard) = shard else { continue };
            let put = move || async move { Ok(artifacts.put(shard.clone()).await?) };
            *digest = persist("a shard", put).await?.0.to_string();
        }
        let [records_digest, refused_digest] = digests;
        let segment =
            &TopicSegment { begin_offset, end_offset, records_digest, refused_digest, ..TopicSegment::default() };
        let moved = persist("a segment", move || async move { Ok(store.commit(cursor, segment).await?) }).await?;
        for (outcome, count) in [("kept", sealed.record_count), ("dead", sealed.dead.len())] {
            let topic = self.topic.name().to_owned();
            metrics::counter!("tidemill_ingestion_messages_total", "topic" => topic, "outcome" => outcome)
                .increment(count as u64);
        }
        Ok(moved)
    }
}

/// Tries until it is done; what waiting cannot mend is an error.
async fn persist<T, F: Future<Output = Result<T, Error>>>(what: &str, work: impl Fn() -> F) -> Result<T, Error> {
    let mut wait = Duration::from_millis(100);
    loop {
        match work().await {
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "{what} cannot be stored now");
                tokio::time::sleep(wait).await;
                wait = LONGEST_WAIT.min(wait * 2);
            }
            done => return done,
        }
    }
}

/// Runs what computes for long on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
