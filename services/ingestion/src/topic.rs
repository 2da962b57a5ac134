//! Topics as sources: every replica follows every `kafka:` source, and the source's consumer group shares out its partitions.
//!
//! ```text
//!   topic ──partition──> decode ──> segment (Parquet, cut by bytes and time) ──┐ one transaction of the
//!                          └─ refused ──> <topic>.dlq                           ├─ resource store: all of it
//!                                         cursor moves to the segment's end ───┘  or none
//!   version = the records between two places of every partition, without repeats, in the order of (partition, offset)
//! ```
//!
//! The cursor is the truth, not the group's offset. Whoever has lost a partition and does not know it finds the cursor's etag
//! changed, and drops its work: nothing is lost and nothing doubled, and a blob that no segment names is the worst left behind.

mod decode;
mod follow;
mod origin;
mod partition;
mod range;
mod segment;
mod store;
mod version;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tidemill_artifacts::Artifacts;
use tidemill_chassis::Task;
use tidemill_eventlog::reader::{self, Topic};
use tidemill_platform::Platform;
use tidemill_proto::ingestion::v1::DataSource;
use tidemill_proto::names;
use tidemill_resources::Collection;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) use decode::Decoder;
pub(crate) use version::Versions;

use crate::error::Error;
use crate::location::Location;
use crate::settings::IngestionSettings;
use follow::Follower;
use store::Store;

/// How soon a new source is followed.
const LOOK: Duration = Duration::from_secs(1);
/// Between attempts at a source that cannot be followed.
const PAUSE: Duration = Duration::from_secs(5);

/// When a segment is cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut {
    /// At so many bytes of messages.
    pub(crate) bytes: usize,
    /// So long after its first message came.
    pub(crate) age: Duration,
}

/// Follows every `kafka:` source.
pub(crate) struct Topics {
    sources: Collection<DataSource>,
    store: Store,
    artifacts: Artifacts,
    cut: Cut,
}

impl Topics {
    pub(crate) fn new(settings: &IngestionSettings, platform: &Platform) -> Self {
        Self {
            sources: platform.collection(),
            store: Store::new(platform.resources.clone()),
            artifacts: platform.artifacts.clone(),
            cut: settings.cut(),
        }
    }

    /// The background task.
    pub(crate) fn task(self) -> Task {
        Task::new("topics", move |stop| self.run(stop))
    }

    async fn run(self, stop: CancellationToken) {
        let mut followed = HashSet::new();
        let mut following = JoinSet::new();
        while !stop.is_cancelled() {
            match self.sources.all("").await {
                Ok(sources) => {
                    for source in sources.into_iter().filter(is_topic) {
                        if followed.insert(source.uid.clone()) {
                            following.spawn(follow(
                                source,
                                self.store.clone(),
                                self.artifacts.clone(),
                                self.cut,
                                stop.clone(),
                            ));
                        }
                    }
                }
                Err(error) => tracing::warn!(%error, "sources cannot be listed now"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
        following.join_all().await;
    }
}

/// Follows a source until the process stops, whatever goes wrong meanwhile.
async fn follow(source: DataSource, store: Store, artifacts: Artifacts, cut: Cut, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let followed = match open(&source) {
            Ok((topic, decoder)) => {
                let (store, artifacts, stop) = (store.clone(), artifacts.clone(), stop.clone());
                let source = source.name.clone();
                Follower { topic, decoder, source, store, artifacts, cut, stop }.run().await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = followed {
            tracing::error!(source = source.name, %error, "the topic cannot be followed now");
            tokio::select! {
                () = stop.cancelled() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }
}

/// A source's topic, and what reads its messages.
fn open(source: &DataSource) -> Result<(Arc<dyn Topic>, Arc<Decoder>), Error> {
    let spec = source.spec.clone().unwrap_or_default();
    // The uid keeps apart sources of one name: those of two installations, or of two times.
    let group = format!("tidemill-{}-{}", names::last_id(&source.name), source.uid);
    let topic = reader::open(&spec.uri, &group)?;
    let decoder = Decoder::new(&spec).map_err(|wrong| {
        let detail =
            wrong.into_iter().map(|(field, text)| format!("spec{field}: {text}")).collect::<Vec<_>>().join("; ");
        Error::Damaged { uri: source.name.clone(), detail }
    })?;
    Ok((topic, Arc::new(decoder)))
}

fn is_topic(source: &DataSource) -> bool {
    source.spec.as_ref().is_some_and(|spec| matches!(Location::parse(&spec.uri), Ok(Location::Topic)))
}

#[cfg(test)]
mod tests;
