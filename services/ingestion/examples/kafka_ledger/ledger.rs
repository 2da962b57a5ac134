//! What should be there beside what is: records by their ids, dead letters by their bytes.

use std::collections::{BTreeMap, HashSet};
use std::time::{Duration, Instant};

use anyhow::ensure;
use tidemill_artifacts::Artifacts;
use tidemill_dataset::{Record, RecordId, RecordIndex, read_shard};
use tidemill_eventlog::reader::{self, Message, News};
use tidemill_proto::ingestion::v1::DatasetVersion;

use crate::recipe::Recipe;

/// The account of one run.
#[derive(Default)]
pub(crate) struct Ledger {
    produced: u64,
    distinct: usize,
    repeated: u64,
    malformed: BTreeMap<&'static str, u64>,
    rows: usize,
    lost: usize,
    foreign: usize,
    doubled: usize,
    dead: BTreeMap<String, u64>,
    dead_again: u64,
    dead_wrong: u64,
    dead_missing: u64,
}

impl Ledger {
    pub(crate) async fn read(
        recipe: &Recipe,
        uri: &str,
        version: &DatasetVersion,
        artifacts: &str,
    ) -> anyhow::Result<Self> {
        let (expected, repeated) = recipe.expected();
        let mut malformed: BTreeMap<&'static str, u64> = BTreeMap::new();
        (0..recipe.messages)
            .filter_map(|i| recipe.cause(i))
            .for_each(|cause| *malformed.entry(cause).or_default() += 1);
        let mut ledger =
            Self { produced: recipe.messages, distinct: expected.len(), repeated, malformed, ..Self::default() };
        ledger.read_dataset(&expected, version, artifacts).await?;
        ledger.read_dead(recipe, uri).await?;
        Ok(ledger)
    }

    async fn read_dataset(&mut self, expected: &[RecordId], version: &DatasetVersion, url: &str) -> anyhow::Result<()> {
        let artifacts = Artifacts::connect(url).await?;
        let digest = version.digest.parse()?;
        let manifest = artifacts.verify_directory(&digest).await?;
        let mut seen = HashSet::with_capacity(expected.len());
        for entry in manifest.entries.iter().filter(|entry| entry.path.starts_with("data/")) {
            for record in read_shard::<Record>(artifacts.get(&entry.digest).await?, &entry.path)? {
                let record = record?;
                ensure!(record.id == RecordId::of(record.text.as_bytes()), "{} has a wrong id", record.origin);
                self.rows += 1;
                self.foreign += usize::from(expected.binary_search(&record.id).is_err());
                self.doubled += usize::from(!seen.insert(record.id));
            }
        }
        self.lost = expected.iter().filter(|id| !seen.contains(*id)).count();
        let index = RecordIndex::parse(artifacts.get_entry(&digest, "records.index").await?)?;
        ensure!(index.len() == seen.len(), "records.index has {} ids, the shards {}", index.len(), seen.len());
        Ok(())
    }

    /// Reads `<topic>.dlq` whole and holds every letter against the message it is made of.
    async fn read_dead(&mut self, recipe: &Recipe, uri: &str) -> anyhow::Result<()> {
        let dlq = reader::open(&format!("{uri}.dlq"), &format!("ledger-{}", uuid::Uuid::new_v4()))?;
        let wanted: i64 = dlq.extents().await?.iter().map(|extent| extent.end - extent.begin).sum();
        let letters = tokio::task::spawn_blocking(move || read_all(&*dlq, wanted)).await??;
        let mut seen = HashSet::new();
        for letter in letters {
            let header = |name: &str| {
                let found = letter.headers.iter().find(|(key, _)| key == name).and_then(|(_, value)| value.as_deref());
                found.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default().to_owned()
            };
            if !seen.insert(header("tidemill-id")) {
                self.dead_again += 1;
                continue;
            }
            let (partition, offset) = (header("tidemill-partition").parse()?, header("tidemill-offset").parse()?);
            let i = recipe.index(partition, offset);
            let cause = header("tidemill-cause").split(':').next().unwrap_or_default().to_owned();
            let topic = uri.rsplit('/').next().unwrap_or_default();
            let right = recipe.cause(i) == Some(cause.as_str())
                && recipe.value(i) == letter.value
                && header("tidemill-topic") == topic
                && header("tidemill-id") == format!("{topic}/{partition}/{offset}");
            self.dead_wrong += u64::from(!right);
            *self.dead.entry(cause).or_default() += 1;
        }
        let buried: u64 = self.dead.values().sum();
        self.dead_missing = self.malformed.values().sum::<u64>().saturating_sub(buried);
        Ok(())
    }

    pub(crate) fn print(
        &self,
        said: &str,
        kills: u64,
        restarts: u64,
        version: &DatasetVersion,
        undisturbed: &DatasetVersion,
    ) {
        let malformed: u64 = self.malformed.values().sum();
        println!("replicas killed -9             {kills}, broker restarted {restarts} times");
        println!("produced                       {} ({said})", self.produced);
        println!("  malformed                    {malformed}  {:?}", self.malformed);
        println!("  repeated                     {}", self.repeated);
        println!("  distinct                     {}", self.distinct);
        println!("in the dataset                 {}", self.rows);
        println!("  lost                         {}", self.lost);
        println!("  doubled                      {}", self.doubled);
        println!("  foreign                      {}", self.foreign);
        println!("quarantined                    {} (malformed and repeated)", version.quarantined_count);
        println!("dead letters                   {}  {:?}", self.dead.values().sum::<u64>(), self.dead);
        println!("  missing                      {}", self.dead_missing);
        println!("  bytes, offset or cause wrong {}", self.dead_wrong);
        println!("  written again, same id       {}", self.dead_again);
        println!("Merkle root                    {}", version.merkle_root);
        println!("  of the undisturbed run       {}", undisturbed.merkle_root);
        println!("manifest                       {}", version.digest);
        println!("  of the undisturbed run       {}", undisturbed.digest);
    }

    pub(crate) fn check(&self, version: &DatasetVersion, undisturbed: &DatasetVersion) -> anyhow::Result<()> {
        let malformed: u64 = self.malformed.values().sum();
        ensure!(self.lost == 0 && self.doubled == 0 && self.foreign == 0, "the dataset is not exact");
        ensure!(self.rows == self.distinct, "the dataset has {} rows, not {}", self.rows, self.distinct);
        ensure!(version.quarantined_count as u64 == malformed + self.repeated, "the quarantine's count is wrong");
        ensure!(self.dead_missing == 0 && self.dead_wrong == 0, "the dead letters are not exact");
        ensure!(version.merkle_root == undisturbed.merkle_root, "the Merkle roots differ");
        ensure!(version.digest == undisturbed.digest, "the manifests differ");
        Ok(())
    }
}

fn read_all(topic: &dyn reader::Topic, wanted: i64) -> anyhow::Result<Vec<Message>> {
    let mut reader = topic.join()?;
    let mut letters = Vec::new();
    let until = Instant::now() + Duration::from_secs(120);
    while (letters.len() as i64) < wanted {
        ensure!(Instant::now() < until, "only {} of {wanted} dead letters can be read", letters.len());
        match reader.next(Duration::from_millis(200))? {
            News::Assigned(partitions) => {
                reader.start(&partitions.into_iter().map(|partition| (partition, 0)).collect::<Vec<_>>())?
            }
            News::Revoked(_) | News::Passed(_) => {}
            News::Messages(batches) => letters.extend(batches.into_iter().flat_map(|(_, messages)| messages)),
        }
    }
    Ok(letters)
}
