//! A topic in memory, a store in memory, and what is done with them.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidemill_artifacts::Artifacts;
use tidemill_dataset::{RawAnnotations, Record, read_file};
use tidemill_eventlog::reader::{DeadLetter, Extent, Message, News, Reader, Topic};
use tidemill_proto::ingestion::v1::dataset_version::TopicRange;
use tidemill_proto::ingestion::v1::{DataSource, TopicCursor, TopicSegment};
use tidemill_proto::r#type::v1::{RecordFormat, SourceSpec};
use tidemill_resources::{Batch, Collection, Write};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::super::follow::Follower;
use super::super::partition::{Arrival, Partition};
use super::super::store::Store;
use super::super::{Cut, Decoder, Versions};
use crate::error::Error;
use crate::watch::Watch;

pub(super) const SOURCE: &str = "dataSources/docs";

pub(super) fn text(text: &str) -> Message {
    Message { value: Some(text.as_bytes().to_vec()), ..Message::default() }
}

pub(super) fn delete(segment: &TopicSegment) -> Batch {
    let delete = Write::Delete { name: segment.name.clone(), etag: segment.etag.clone() };
    Batch { writes: vec![delete], events: Vec::new() }
}

pub(super) struct World {
    pub(super) topic: Arc<Memory>,
    pub(super) resources: Arc<dyn tidemill_resources::Store>,
    artifacts: Artifacts,
    folder: tempfile::TempDir,
}

impl World {
    pub(super) async fn new(partitions: Vec<Vec<Message>>) -> Self {
        let numbered = |messages: Vec<Message>| {
            (0..).zip(messages).map(|(offset, message)| Message { offset, ..message }).collect()
        };
        let partitions = partitions.into_iter().map(numbered).collect();
        Self {
            topic: Arc::new(Memory { partitions, ..Memory::default() }),
            resources: tidemill_resources::connect("sqlite::memory:").await.unwrap(),
            artifacts: Artifacts::connect("memory:").await.unwrap(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn store(&self) -> Store {
        Store::new(self.resources.clone())
    }

    fn decoder() -> Arc<Decoder> {
        let format = RecordFormat::Text.into();
        let decoder = Decoder::new(&SourceSpec { format, max_record_bytes: 200, ..SourceSpec::default() });
        Arc::new(decoder.unwrap_or_else(|wrong| panic!("{wrong:?}")))
    }

    pub(super) fn worker(&self, number: i32) -> Partition {
        let cut = Cut { bytes: 1 << 20, age: Duration::from_secs(3600) };
        let (topic, decoder, store) = (self.topic.clone(), Self::decoder(), self.store());
        Partition { topic, decoder, store, artifacts: self.artifacts.clone(), cut, number }
    }

    pub(super) fn follower(&self, bytes: usize, stop: CancellationToken) -> Follower {
        let cut = Cut { bytes, age: Duration::from_millis(20) };
        let (topic, decoder, store) = (self.topic.clone(), Self::decoder(), self.store());
        Follower { topic, decoder, source: SOURCE.to_owned(), store, artifacts: self.artifacts.clone(), cut, stop }
    }

    /// Collects the whole topic.
    pub(super) async fn collect(&self, bytes: usize) {
        let stop = CancellationToken::new();
        let follower = tokio::spawn(self.follower(bytes, stop.clone()).run());
        self.until_collected().await;
        stop.cancel();
        follower.await.unwrap().unwrap();
    }

    /// Begins to collect one partition, fed with all its messages at once.
    pub(super) async fn partition(&self, number: i32, bytes: usize, age: Duration) -> AbortHandle {
        let (arrivals, arriving) = tokio::sync::mpsc::channel(1);
        let (tell, _) = tokio::sync::mpsc::unbounded_channel();
        let worker = Partition { cut: Cut { bytes, age }, ..self.worker(number) };
        let cursor = self.cursor(number).await;
        arrivals.send(Arrival::Messages(self.topic.partitions[number as usize].clone())).await.unwrap();
        tokio::spawn(async move {
            worker.run(cursor, arriving, tell).await;
            drop(arrivals);
        })
        .abort_handle()
    }

    pub(super) async fn until_collected(&self) {
        let waiting = async {
            for (number, messages) in (0..).zip(&self.topic.partitions) {
                while self.cursor(number).await.next_offset < messages.len() as i64 {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("collected within a minute");
    }

    pub(super) async fn cursor(&self, number: i32) -> TopicCursor {
        self.store().cursor(SOURCE, number).await.unwrap()
    }

    pub(super) async fn segments(&self, number: i32) -> Vec<TopicSegment> {
        let all =
            Collection::<TopicSegment>::new(self.resources.clone()).all(&format!("{SOURCE}/segments/")).await.unwrap();
        let known = self.store().segments(SOURCE, number, 0, i64::MAX).await.unwrap();
        assert!(known.iter().all(|segment| all.contains(segment)));
        known
    }

    pub(super) async fn try_assemble(&self, ranges: &[(i32, i64, i64)]) -> Result<RawAnnotations, Error> {
        let range = |&(partition, begin_offset, end_offset)| TopicRange { partition, begin_offset, end_offset };
        let ranges: Vec<_> = ranges.iter().map(range).collect();
        let watch = Watch::new(CancellationToken::new(), |_| {});
        let versions = Versions::new(self.resources.clone(), self.artifacts.clone(), 1000);
        let _ = std::fs::remove_dir_all(self.version());
        let spec = SourceSpec { uri: "kafka://b/docs".to_owned(), ..SourceSpec::default() };
        let source = DataSource { name: SOURCE.to_owned(), spec: Some(spec), ..DataSource::default() };
        versions.assemble(&source, &ranges, &self.version(), &watch).await
    }

    /// The annotations, and a digest of all files.
    pub(super) async fn assemble(&self, ranges: &[(i32, i64, i64)]) -> (RawAnnotations, String) {
        let annotations = self.try_assemble(ranges).await.unwrap();
        let files = self.artifacts.put_directory(&self.version(), "dataset", Vec::new(), Default::default()).await;
        (annotations, files.unwrap().to_string())
    }

    pub(super) fn records(&self) -> Vec<Record> {
        read_file(&self.version().join("data/part-00000.parquet")).unwrap().map(Result::unwrap).collect()
    }

    fn version(&self) -> PathBuf {
        self.folder.path().join("version")
    }
}

/// A topic whose every reader is assigned every partition: the worst that a group can do.
#[derive(Default)]
pub(super) struct Memory {
    partitions: Vec<Vec<Message>>,
    dead: Mutex<Vec<DeadLetter>>,
    refuses: AtomicBool,
}

impl Memory {
    pub(super) fn message(&self, partition: usize, offset: usize) -> Message {
        self.partitions[partition][offset].clone()
    }

    pub(super) fn refuse_burials(&self, refuse: bool) {
        self.refuses.store(refuse, Ordering::SeqCst);
    }

    pub(super) fn dead(&self) -> Vec<DeadLetter> {
        self.dead.lock().unwrap().clone()
    }

    fn away() -> tidemill_eventlog::Error {
        tidemill_eventlog::Error::Unavailable { url: "memory".to_owned(), reason: "closed".to_owned() }
    }
}

struct MemoryReader {
    partitions: Vec<Vec<Message>>,
    news: VecDeque<News>,
    at: Vec<(i32, i64)>,
}

#[async_trait]
impl Topic for Memory {
    fn name(&self) -> &str {
        "docs"
    }

    async fn extents(&self) -> tidemill_eventlog::Result<Vec<Extent>> {
        let extent =
            |(partition, messages): (i32, &Vec<Message>)| Extent { partition, begin: 0, end: messages.len() as i64 };
        Ok((0..).zip(&self.partitions).map(extent).collect())
    }

    fn group(&self) -> &str {
        "group"
    }

    fn join(&self) -> tidemill_eventlog::Result<Box<dyn Reader>> {
        let numbers = (0..self.partitions.len() as i32).collect();
        let news = VecDeque::from([News::Assigned(numbers)]);
        Ok(Box::new(MemoryReader { partitions: self.partitions.clone(), news, at: Vec::new() }))
    }

    async fn bury(&self, dead: Vec<DeadLetter>) -> tidemill_eventlog::Result<()> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(Self::away());
        }
        self.dead.lock().unwrap().extend(dead);
        Ok(())
    }
}

impl Reader for MemoryReader {
    fn next(&mut self, wait: Duration) -> tidemill_eventlog::Result<News> {
        if let Some(news) = self.news.pop_front() {
            return Ok(news);
        }
        let mut batches = Vec::new();
        for (partition, next) in &mut self.at {
            let messages = &self.partitions[*partition as usize];
            let from = usize::try_from(*next).unwrap().min(messages.len());
            let some: Vec<_> = messages[from..].iter().take(3).cloned().collect();
            *next += some.len() as i64;
            if !some.is_empty() {
                batches.push((*partition, some));
            }
        }
        if batches.is_empty() {
            std::thread::sleep(wait.min(Duration::from_millis(5)));
        }
        Ok(News::Messages(batches))
    }

    fn start(&mut self, at: &[(i32, i64)]) -> tidemill_eventlog::Result<()> {
        for (partition, offset) in at {
            self.at.retain(|(known, _)| known != partition);
            self.at.push((*partition, *offset));
        }
        Ok(())
    }

    fn commit(&mut self, _: &[(i32, i64)]) -> tidemill_eventlog::Result<()> {
        Ok(())
    }

    fn lag(&self) -> i64 {
        0
    }
}
