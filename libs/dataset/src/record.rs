//! The rows: a raw record, a refused one, a prepared document and what became of a record.

use std::{collections::BTreeMap, fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

use crate::{Error, Split};

/// A record's identity: the sha256 of its raw bytes. The same text has the same id in every dataset and version.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId(pub [u8; 32]);

impl RecordId {
    /// The id of these raw bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", hex::encode(self.0))
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for RecordId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        let mut id = [0; 32];
        hex::decode_to_slice(digits, &mut id)
            .map_err(|_| Error::Invalid(format!("{text:?} is not a record id: expected sha256:<64 hex digits>")))?;
        Ok(Self(id))
    }
}

/// A raw record that was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// sha256 of `text`.
    pub id: RecordId,
    /// Path inside the source, and `:<line>` for line formats.
    pub origin: String,
    /// The text as it was read.
    pub text: String,
    /// From the file's name or the line's fields.
    pub metadata: BTreeMap<String, String>,
}

impl Record {
    /// A record with the id of its text.
    #[must_use]
    pub fn new(origin: impl Into<String>, text: impl Into<String>, metadata: BTreeMap<String, String>) -> Self {
        let text = text.into();
        Self { id: RecordId::of(text.as_bytes()), origin: origin.into(), text, metadata }
    }

    /// Whether the record was rendered from feedback; such records always train.
    #[must_use]
    pub fn is_feedback(&self) -> bool {
        self.metadata.get("kind").is_some_and(|kind| kind == "feedback")
    }
}

/// A record that was refused, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Path inside the source, and `:<line>` for line formats.
    pub origin: String,
    /// Why, as CODE: `INVALID_UTF8`, `DUPLICATE`.
    pub reason: String,
    /// Why, in words.
    pub detail: String,
    /// The first characters, with invalid bytes replaced.
    pub excerpt: String,
    /// Bytes of the record.
    pub size: u64,
}

/// A document of a prepared dataset: a record's text after preparation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The raw record's id.
    pub id: RecordId,
    /// The text that is tokenised and evaluated.
    pub text: String,
}

/// What became of one record in preparation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fate {
    /// The raw record's id.
    pub id: RecordId,
    /// Its split; none for a dropped record.
    pub split: Option<Split>,
    /// Why it was dropped, as CODE; empty for a kept one.
    pub reason: String,
    /// Why, in words.
    pub detail: String,
    /// Personal data replaced in it.
    pub redacted_count: u64,
    /// Its tokens, end of text included; 0 for a dropped one.
    pub token_count: u64,
}
