//! `records.index`: every record id of a dataset, sorted, 32 bytes each, so that "did this dataset hold that record" is one search.

use bytes::Bytes;

use crate::{Error, RecordId};

/// A sorted set of record ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordIndex(Bytes);

impl RecordIndex {
    /// Sorts the ids and drops repeats.
    #[must_use]
    pub fn of(ids: impl IntoIterator<Item = RecordId>) -> Self {
        let mut ids: Vec<RecordId> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        Self(ids.iter().flat_map(|id| id.0).collect())
    }

    /// Reads stored bytes; refuses what is not whole or not sorted.
    pub fn parse(bytes: Bytes) -> Result<Self, Error> {
        let index = Self(bytes);
        if !index.0.len().is_multiple_of(32) {
            return Err(Error::corrupt("records.index", format!("{} bytes are not whole 32-byte ids", index.0.len())));
        }
        if !index.0.chunks_exact(32).is_sorted_by(|a, b| a < b) {
            return Err(Error::corrupt("records.index", "ids are not sorted"));
        }
        Ok(index)
    }

    /// What is stored.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// How many ids.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len() / 32
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether it holds this id.
    #[must_use]
    pub fn contains(&self, id: &RecordId) -> bool {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.0[middle * 32..middle * 32 + 32].cmp(&id.0) {
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        false
    }

    /// The ids in order.
    pub fn iter(&self) -> impl Iterator<Item = RecordId> + '_ {
        self.0.chunks_exact(32).map(|chunk| {
            let mut id = [0; 32];
            id.copy_from_slice(chunk);
            RecordId(id)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_finds_its_ids_and_no_others() {
        let ids: Vec<RecordId> = (0..1000u32).map(|i| RecordId::of(&i.to_le_bytes())).collect();
        let index = RecordIndex::of(ids.iter().chain(&ids).copied());
        assert_eq!(index.len(), 1000);
        assert_eq!(RecordIndex::parse(index.bytes().clone()).unwrap(), index);
        assert!(ids.iter().all(|id| index.contains(id)));
        assert!(!index.contains(&RecordId::of(b"other")));
        assert!(!RecordIndex::of([]).contains(&ids[0]));
        assert!(index.iter().is_sorted());
    }

    #[test]
    fn a_damaged_index_is_refused() {
        let bytes = RecordIndex::of([RecordId([1; 32]), RecordId([2; 32])]).bytes().clone();
        assert!(RecordIndex::parse(bytes.slice(1..)).unwrap_err().to_string().contains("records.index"));
        let swapped: Bytes = [&bytes[32..], &bytes[..32]].concat().into();
        assert!(RecordIndex::parse(swapped).unwrap_err().to_string().contains("not sorted"));
    }
}
