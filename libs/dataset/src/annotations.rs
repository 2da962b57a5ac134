//! What manifests say about a dataset: typed on this side, strings by key on the other.

mod rows;

use std::{collections::BTreeMap, fmt::Display, str::FromStr};

use crate::{Error, RowType, Split, TokenWidth};
pub use rows::{Prepared, RowsAnnotations};

type Map = BTreeMap<String, String>;

/// Only where records are rows.
const ROW_TYPE: &str = "row_type";

/// Annotations of a raw dataset version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RawAnnotations {
    /// Records kept.
    pub record_count: u64,
    /// Bytes of text kept.
    pub text_bytes: u64,
    /// Records refused.
    pub quarantined_count: u64,
    /// SPDX expression or name.
    pub license: String,
    /// Why the records may be used.
    pub consent_basis: String,
    /// What they may be used for.
    pub purpose: String,
    /// Where they came from; empty for feedback.
    pub source_uri: String,
    /// sha256 of the source's file, in hex; empty where there is none.
    pub source_sha256: String,
    /// Root of the [`crate::MerkleTree`] over the ids of its records in their order; empty in versions from before there was one.
    pub merkle_root: String,
    /// The type of its records, where they are rows; none where they are text.
    pub row_type: Option<RowType>,
}

impl RawAnnotations {
    /// As a manifest holds them.
    #[must_use]
    pub fn to_map(&self) -> Map {
        let mut map: Map = [
            ("record_count", self.record_count.to_string()),
            ("text_bytes", self.text_bytes.to_string()),
            ("quarantined_count", self.quarantined_count.to_string()),
            ("license", self.license.clone()),
            ("consent_basis", self.consent_basis.clone()),
            ("purpose", self.purpose.clone()),
            ("source_uri", self.source_uri.clone()),
            ("source_sha256", self.source_sha256.clone()),
            ("merkle_root", self.merkle_root.clone()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        map.extend(self.row_type.map(|row_type| (ROW_TYPE.to_owned(), row_type.to_string())));
        map
    }

    /// From a manifest.
    pub fn from_map(map: &Map) -> Result<Self, Error> {
        Ok(Self {
            record_count: parse(map, "record_count")?,
            text_bytes: parse(map, "text_bytes")?,
            quarantined_count: parse(map, "quarantined_count")?,
            license: parse(map, "license")?,
            consent_basis: parse(map, "consent_basis")?,
            purpose: parse(map, "purpose")?,
            source_uri: parse(map, "source_uri")?,
            source_sha256: parse(map, "source_sha256")?,
            merkle_root: map.get("merkle_root").cloned().unwrap_or_default(),
            row_type: if map.contains_key(ROW_TYPE) { Some(parse(map, ROW_TYPE)?) } else { None },
        })
    }
}

/// Sizes of one side of a prepared dataset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SplitSize {
    /// Documents.
    pub document_count: u64,
    /// Bytes of text.
    pub text_bytes: u64,
    /// Tokens packed, document ends included.
    pub token_count: u64,
}

/// Annotations of a prepared dataset of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedAnnotations {
    /// Width of stored tokens.
    pub token_width: TokenWidth,
    /// Ids the tokenizer can give.
    pub vocabulary_size: u64,
    /// The id after each document.
    pub end_of_text_id: u32,
    /// Digest of the tokenizer's manifest.
    pub tokenizer_digest: String,
    /// The recipe as JSON.
    pub recipe: String,
    /// Sizes by side; every side is there.
    pub splits: BTreeMap<Split, SplitSize>,
    /// Records dropped, by reason.
    pub dropped_counts: BTreeMap<String, u64>,
    /// Personal data replaced.
    pub redacted_count: u64,
}

impl PreparedAnnotations {
    /// As a manifest holds them.
    #[must_use]
    pub fn to_map(&self) -> Map {
        let mut map: Map = [
            ("token_width", self.token_width.to_string()),
            ("vocabulary_size", self.vocabulary_size.to_string()),
            ("end_of_text_id", self.end_of_text_id.to_string()),
            ("tokenizer_digest", self.tokenizer_digest.clone()),
            ("recipe", self.recipe.clone()),
            ("redacted_count", self.redacted_count.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        for split in Split::ALL {
            let size = self.splits.get(&split).copied().unwrap_or_default();
            map.insert(format!("{split}.document_count"), size.document_count.to_string());
            map.insert(format!("{split}.text_bytes"), size.text_bytes.to_string());
            map.insert(format!("{split}.token_count"), size.token_count.to_string());
        }
        insert_dropped(&mut map, &self.dropped_counts);
        map
    }

    /// From a manifest; a dataset of rows is told apart.
    pub fn from_map(map: &Map) -> Result<Self, Error> {
        if let Some(row_type) = map.get(ROW_TYPE) {
            return Err(Error::Invalid(format!(
                "the dataset holds rows ({row_type}), not packed tokens: use a method that learns rows, or prepare text"
            )));
        }
        let mut splits = BTreeMap::new();
        for split in Split::ALL {
            let size = SplitSize {
                document_count: parse(map, &format!("{split}.document_count"))?,
                text_bytes: parse(map, &format!("{split}.text_bytes"))?,
                token_count: parse(map, &format!("{split}.token_count"))?,
            };
            splits.insert(split, size);
        }
        Ok(Self {
            token_width: parse(map, "token_width")?,
            vocabulary_size: parse(map, "vocabulary_size")?,
            end_of_text_id: parse(map, "end_of_text_id")?,
            tokenizer_digest: parse(map, "tokenizer_digest")?,
            recipe: parse(map, "recipe")?,
            splits,
            dropped_counts: dropped(map)?,
            redacted_count: parse(map, "redacted_count")?,
        })
    }
}

fn insert_dropped(map: &mut Map, counts: &BTreeMap<String, u64>) {
    for (reason, count) in counts {
        map.insert(format!("dropped.{reason}"), count.to_string());
    }
}

fn dropped(map: &Map) -> Result<BTreeMap<String, u64>, Error> {
    let reasons = map.keys().filter_map(|key| Some((key, key.strip_prefix("dropped.")?)));
    reasons.map(|(key, reason)| Ok((reason.to_owned(), parse(map, key)?))).collect()
}

fn parse<T: FromStr<Err: Display>>(map: &Map, key: &str) -> Result<T, Error> {
    let value = map.get(key).ok_or_else(|| Error::corrupt(format!("annotation {key}"), "missing"))?;
    value.parse().map_err(|e| Error::corrupt(format!("annotation {key}"), format!("{value:?}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared() -> PreparedAnnotations {
        let size = SplitSize { document_count: 1, text_bytes: 2, token_count: 3 };
        PreparedAnnotations {
            token_width: TokenWidth::U16,
            vocabulary_size: 4096,
            end_of_text_id: 0,
            tokenizer_digest: "sha256:00".into(),
            recipe: "{}".into(),
            splits: Split::ALL.map(|split| (split, size)).into(),
            dropped_counts: [("NEAR_DUPLICATE".to_owned(), 7)].into(),
            redacted_count: 2,
        }
    }

    #[test]
    fn annotations_survive_the_manifest() {
        assert_eq!(PreparedAnnotations::from_map(&prepared().to_map()).unwrap(), prepared());
        for row_type in [None, Some(RowType::Judged)] {
            let raw = RawAnnotations { record_count: 233, license: "PDDL-1.0".into(), row_type, ..Default::default() };
            assert_eq!(RawAnnotations::from_map(&raw.to_map()).unwrap(), raw);
            // Digests of datasets of text are those from before there were rows.
            assert_eq!(raw.to_map().contains_key(ROW_TYPE), row_type.is_some());
        }
    }

    #[test]
    fn a_missing_or_broken_annotation_is_named() {
        let mut map = prepared().to_map();
        map.insert("test.token_count".into(), "many".into());
        assert!(PreparedAnnotations::from_map(&map).unwrap_err().to_string().contains("test.token_count"));
        map.remove("token_width");
        map.insert("test.token_count".into(), "1".into());
        assert!(
            PreparedAnnotations::from_map(&map).unwrap_err().to_string().contains("token_width is corrupt: missing")
        );
    }
}
