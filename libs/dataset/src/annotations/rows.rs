//! Annotations of a prepared dataset of rows, which keep their text: the model that learns them brings its tokenizer.

use std::collections::BTreeMap;

use super::{Map, PreparedAnnotations, ROW_TYPE, dropped, insert_dropped, parse};
use crate::{Error, RowType, Split, SplitSize};

/// Annotations of a prepared dataset of rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowsAnnotations {
    /// The type of all rows.
    pub row_type: RowType,
    /// The recipe as JSON.
    pub recipe: String,
    /// Sizes by side, without tokens; every side is there.
    pub splits: BTreeMap<Split, SplitSize>,
    /// Records dropped, by reason.
    pub dropped_counts: BTreeMap<String, u64>,
    /// Personal data replaced.
    pub redacted_count: u64,
}

/// What a prepared dataset holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prepared {
    /// Packed tokens, and the text they were.
    Tokens(PreparedAnnotations),
    /// Rows.
    Rows(RowsAnnotations),
}

impl Prepared {
    /// From a manifest.
    pub fn from_map(map: &Map) -> Result<Self, Error> {
        if map.contains_key(ROW_TYPE) {
            RowsAnnotations::from_map(map).map(Self::Rows)
        } else {
            PreparedAnnotations::from_map(map).map(Self::Tokens)
        }
    }
}

impl RowsAnnotations {
    /// As a manifest holds them.
    #[must_use]
    pub fn to_map(&self) -> Map {
        let mut map: Map = [
            (ROW_TYPE, self.row_type.to_string()),
            ("recipe", self.recipe.clone()),
            ("redacted_count", self.redacted_count.to_string()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        for split in Split::ALL {
            let size = self.splits.get(&split).copied().unwrap_or_default();
            map.insert(format!("{split}.document_count"), size.document_count.to_string());
            map.insert(format!("{split}.text_bytes"), size.text_bytes.to_string());
        }
        insert_dropped(&mut map, &self.dropped_counts);
        map
    }

    /// From a manifest.
    pub fn from_map(map: &Map) -> Result<Self, Error> {
        let mut splits = BTreeMap::new();
        for split in Split::ALL {
            let size = SplitSize {
                document_count: parse(map, &format!("{split}.document_count"))?,
                text_bytes: parse(map, &format!("{split}.text_bytes"))?,
                token_count: 0,
            };
            splits.insert(split, size);
        }
        Ok(Self {
            row_type: parse(map, ROW_TYPE)?,
            recipe: parse(map, "recipe")?,
            splits,
            dropped_counts: dropped(map)?,
            redacted_count: parse(map, "redacted_count")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_of_rows_is_told_from_one_of_tokens() {
        let size = SplitSize { document_count: 1, text_bytes: 2, token_count: 0 };
        let rows = RowsAnnotations {
            row_type: RowType::Preference,
            recipe: "{}".into(),
            splits: Split::ALL.map(|split| (split, size)).into(),
            dropped_counts: [("EMPTY".to_owned(), 3)].into(),
            redacted_count: 4,
        };
        let mut map = rows.to_map();
        assert_eq!(Prepared::from_map(&map).unwrap(), Prepared::Rows(rows));
        let error = PreparedAnnotations::from_map(&map).unwrap_err().to_string();
        assert!(error.contains("holds rows (preference)"), "{error}");
        map.insert(ROW_TYPE.to_owned(), "poem".into());
        assert!(Prepared::from_map(&map).unwrap_err().to_string().contains("row_type"));
    }
}
