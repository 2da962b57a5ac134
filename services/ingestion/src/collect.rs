//! Outcomes into the files of a raw dataset version: Parquet shards, quarantine, index. Exact duplicates are refused here.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use tidemill_dataset::{MerkleTree, Quarantined, RawAnnotations, Record, RecordId, RecordIndex, ShardWriter};
use tidemill_proto::r#type::v1::RecordFormat;

use crate::{
    error::Error,
    records::{OneType, Outcome, refuse},
};

/// Writes a dataset version's files.
pub(crate) struct Collection {
    folder: PathBuf,
    records: ShardWriter<Record>,
    quarantine: ShardWriter<Quarantined>,
    /// Where each record was first seen.
    seen: HashMap<RecordId, Box<str>>,
    tree: MerkleTree,
    text_bytes: u64,
    refused: BTreeMap<String, u64>,
    /// Only where records are rows.
    rows: Option<OneType>,
}

impl Collection {
    /// Into a folder that does not exist yet.
    pub(crate) fn create(folder: &Path) -> Result<Self, Error> {
        Ok(Self {
            folder: folder.to_owned(),
            records: ShardWriter::create(folder.join("data"))?,
            quarantine: ShardWriter::create(folder.join("quarantine"))?,
            seen: HashMap::new(),
            tree: MerkleTree::default(),
            text_bytes: 0,
            refused: BTreeMap::new(),
            rows: None,
        })
    }

    /// The same for the records of a source, which are rows of one type if its format says so.
    pub(crate) fn of_source(folder: &Path, format: RecordFormat) -> Result<Self, Error> {
        let rows = (format == RecordFormat::Rows).then(OneType::default);
        Ok(Self { rows, ..Self::create(folder)? })
    }

    /// Adds a record or a refusal.
    pub(crate) fn add(&mut self, outcome: Outcome) -> Result<(), Error> {
        let refused = match outcome {
            Ok(record) => match self.seen.get(&record.id) {
                None => {
                    if let Some(rows) = &mut self.rows {
                        rows.admit(&record)?;
                    }
                    self.seen.insert(record.id, record.origin.as_str().into());
                    self.tree.push(record.id);
                    self.text_bytes += record.text.len() as u64;
                    return Ok(self.records.push(record)?);
                }
                Some(first) => {
                    let detail = format!("the same text as {first}");
                    refuse(&record.origin, "DUPLICATE", detail, record.text.as_bytes(), record.text.len() as u64)
                }
            },
            Err(refused) => refused,
        };
        *self.refused.entry(refused.reason.clone()).or_default() += 1;
        Ok(self.quarantine.push(refused)?)
    }

    /// Completes the files; refuses a version without any record.
    pub(crate) fn finish(self, uri: &str) -> Result<RawAnnotations, Error> {
        let quarantined_count = self.refused.values().sum();
        if self.records.rows() == 0 {
            let reasons: Vec<String> = self.refused.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
            let detail = match quarantined_count {
                0 => ": no file was found".to_owned(),
                count => format!(" among {count} refused ({})", reasons.join(", ")),
            };
            return Err(Error::Empty { uri: uri.to_owned(), detail });
        }
        let record_count = self.records.rows();
        self.records.finish()?;
        self.quarantine.finish()?;
        let index = self.folder.join("records.index");
        std::fs::write(&index, RecordIndex::of(self.seen.into_keys()).bytes()).map_err(|e| Error::file(&index, e))?;
        Ok(RawAnnotations {
            record_count,
            text_bytes: self.text_bytes,
            quarantined_count,
            merkle_root: self.tree.root().to_string(),
            row_type: self.rows.and_then(|rows| rows.row_type()),
            ..RawAnnotations::default()
        })
    }
}
