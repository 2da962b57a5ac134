//! A version of a topic: which offsets it covers is fixed first, then their segments are waited for, and then its records are put
//! together in the order of (partition, offset). How they were cut, and by whom, makes no difference.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use tidemill_artifacts::Artifacts;
use tidemill_dataset::{RawAnnotations, read_shard};
use tidemill_eventlog::reader::Topic;
use tidemill_proto::ingestion::v1::dataset_version::{Origin, TopicRange};
use tidemill_proto::ingestion::v1::{DataSource, Dataset, DatasetVersion, TopicSegment};
use tidemill_proto::r#type::v1::{RecordFormat, SourceSpec, State};
use tidemill_proto::{Job, names};
use tidemill_resources::{Batch, Collection as Resources, Write};

use super::segment::outcomes;
use super::store::Store;
use super::{open, range};
use crate::collect::Collection;
use crate::error::Error;
use crate::watch::Watch;

/// Between looks at something that others change.
const LOOK: Duration = Duration::from_millis(500);
/// Segments read ahead.
const AHEAD: usize = 2;

/// Makes versions of topics.
pub(crate) struct Versions {
    versions: Resources<DatasetVersion>,
    datasets: Resources<Dataset>,
    store: Store,
    artifacts: Artifacts,
    most: u64,
}

impl Versions {
    /// Versions of at most `most` offsets.
    pub(crate) fn new(resources: Arc<dyn tidemill_resources::Store>, artifacts: Artifacts, most: u64) -> Self {
        Self {
            versions: Resources::new(resources.clone()),
            datasets: Resources::new(resources.clone()),
            store: Store::new(resources),
            artifacts,
            most,
        }
    }

    /// Writes a version's files into `folder`; gives also the offsets it covers.
    pub(crate) async fn collect(
        &self,
        version: &DatasetVersion,
        source: &DataSource,
        folder: &Path,
        watch: &Watch,
    ) -> Result<(Vec<TopicRange>, RawAnnotations), Error> {
        let (topic, _) = open(source)?;
        let ranges = self.fix(version, &*topic, watch).await?;
        self.wait(&source.name, &ranges, watch).await?;
        let annotations = self.assemble(source, &ranges, folder, watch).await?;
        Ok((ranges, annotations))
    }

    /// Fixes which offsets the version covers, once: whoever takes the job up later finds them.
    async fn fix(&self, version: &DatasetVersion, topic: &dyn Topic, watch: &Watch) -> Result<Vec<TopicRange>, Error> {
        watch.phase("waiting for messages", "records", 0);
        let asked = version.topic_end.unwrap_or_default();
        let most = u64::try_from(asked.max_record_count).ok().filter(|most| (1..self.most).contains(most));
        let until = seconds(version.create_time)
            + asked.wait.map_or(0.0, |wait| wait.seconds as f64 + f64::from(wait.nanos) / 1e9);
        loop {
            watch.check()?;
            // Its etag is what serialises the versions of one dataset: it is read before they are.
            let dataset = self.datasets.get(names::parent(&version.name)).await?;
            let present = self.versions.get(&version.name).await?;
            if !present.topic_ranges.is_empty() {
                return Ok(present.topic_ranges);
            }
            let last = self.last(&present).await?;
            let extents = topic.extents().await?;
            let mut ranges = range::after(&last, &extents);
            let found = range::length(&ranges, &extents);
            if found < most.unwrap_or(u64::MAX) && now() < until {
                tokio::time::sleep(LOOK).await;
                continue;
            }
            range::shorten(&mut ranges, &extents, most.unwrap_or(self.most));
            let fixed = DatasetVersion { topic_ranges: ranges.clone(), ..present.clone() };
            let batch = Batch {
                writes: vec![
                    Write::Update {
                        name: dataset.name.clone(),
                        etag: dataset.etag.clone(),
                        body: Resources::encode(&dataset),
                    },
                    Write::Update { name: present.name, etag: present.etag, body: Resources::encode(&fixed) },
                ],
                events: Vec::new(),
            };
            match self.versions.store().commit(batch).await {
                Ok(_) => return Ok(ranges),
                Err(tidemill_resources::Error::Conflict(_)) => tokio::time::sleep(LOOK).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Where earlier versions of the dataset ended in the same topic. One that is under way leaves that open.
    async fn last(&self, version: &DatasetVersion) -> Result<Vec<TopicRange>, Error> {
        let Some(Origin::DataSource(source)) = &version.origin else { return Ok(Vec::new()) };
        let siblings = self.versions.all(&format!("{}/versions/", names::parent(&version.name))).await?;
        let mut last: Vec<TopicRange> = Vec::new();
        for sibling in siblings.into_iter().filter(|sibling| sibling.name != version.name) {
            if !matches!(&sibling.origin, Some(Origin::DataSource(other)) if other == source) {
                continue;
            }
            if !sibling.ended() && !sibling.topic_ranges.is_empty() {
                return Err(Error::Unfinished { name: sibling.name });
            }
            if sibling.state() != State::Succeeded {
                continue;
            }
            for range in sibling.topic_ranges {
                match last.iter_mut().find(|known| known.partition == range.partition) {
                    Some(known) => known.end_offset = known.end_offset.max(range.end_offset),
                    None => last.push(range),
                }
            }
        }
        Ok(last)
    }

    /// Waits until every offset is in a segment.
    async fn wait(&self, source: &str, ranges: &[TopicRange], watch: &Watch) -> Result<(), Error> {
        let total: i64 = ranges.iter().map(|range| range.end_offset - range.begin_offset).sum();
        watch.phase("collecting", "records", total.unsigned_abs());
        let mut before = 0;
        loop {
            watch.check()?;
            let mut missing = 0;
            for range in ranges {
                let next = self.store.cursor(source, range.partition).await?.next_offset;
                missing += range.end_offset - next.clamp(range.begin_offset, range.end_offset);
            }
            let done = (total - missing).unsigned_abs();
            watch.advance(done.saturating_sub(before));
            before = done;
            if missing == 0 {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Puts the records of collected offsets together.
    pub(super) async fn assemble(
        &self,
        source: &DataSource,
        ranges: &[TopicRange],
        folder: &Path,
        watch: &Watch,
    ) -> Result<RawAnnotations, Error> {
        let total: i64 = ranges.iter().map(|range| range.end_offset - range.begin_offset).sum();
        watch.phase("putting together", "records", total.unsigned_abs());
        let folder: PathBuf = folder.to_owned();
        let spec = source.spec.as_ref();
        let uri = address(spec.map_or("", |spec| &spec.uri));
        let format = spec.map_or(RecordFormat::Unspecified, SourceSpec::format);
        let mut collection = blocking(move || Collection::of_source(&folder, format)).await?;
        let mut ranges = ranges.to_vec();
        ranges.sort_by_key(|range| range.partition);
        for range in ranges {
            let (begin, end) = (range.begin_offset, range.end_offset);
            let segments = self.store.segments(&source.name, range.partition, begin, end).await?;
            check_whole(&segments, &range)?;
            // Futures are made before they are a stream: a stream's `map` would hide from callers that they are Send.
            let shards: Vec<_> = segments.iter().map(|segment| self.shards(segment)).collect();
            let mut shards = futures::stream::iter(shards).buffered(AHEAD);
            while let Some(shards) = shards.next().await {
                let ([records, refused], watch) = (shards?, watch.clone());
                collection = blocking(move || {
                    let records = records.map(|shard| read_shard(shard, "segment")).transpose()?;
                    let refused = refused.map(|shard| read_shard(shard, "segment")).transpose()?;
                    for outcome in outcomes(records.into_iter().flatten(), refused.into_iter().flatten()) {
                        let (offset, outcome) = outcome?;
                        if (begin..end).contains(&offset) {
                            collection.add(outcome)?;
                            watch.advance(1);
                        }
                    }
                    watch.check()?;
                    Ok(collection)
                })
                .await?;
            }
        }
        blocking(move || Ok(RawAnnotations { source_uri: uri.clone(), ..collection.finish(&uri)? })).await
    }

    /// A segment's shards, of records and of refusals.
    async fn shards(&self, segment: &TopicSegment) -> Result<[Option<Bytes>; 2], Error> {
        let get = async |digest: &str| match digest {
            "" => Ok::<_, Error>(None),
            digest => Ok(Some(self.artifacts.get(&digest.parse()?).await?)),
        };
        Ok([get(&segment.records_digest).await?, get(&segment.refused_digest).await?])
    }
}

/// Segments that follow each other from the range's beginning to its end.
fn check_whole(segments: &[TopicSegment], range: &TopicRange) -> Result<(), Error> {
    let mut next = range.begin_offset;
    for segment in segments {
        if segment.begin_offset > next {
            break;
        }
        next = segment.end_offset;
    }
    if next >= range.end_offset { Ok(()) } else { Err(Error::Gap { partition: range.partition, offset: next }) }
}

/// A topic's uri without its parameters, which are how this machine is admitted, and no part of the data.
fn address(uri: &str) -> String {
    uri.split('?').next().unwrap_or_default().to_owned()
}

fn seconds(time: Option<prost_types::Timestamp>) -> f64 {
    time.map_or(0.0, |time| time.seconds as f64 + f64::from(time.nanos) / 1e9)
}

fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

/// Runs what blocks on a thread of its own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
}
