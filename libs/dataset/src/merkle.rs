//! The root of a hash tree over record ids in their order: RFC 6962's tree, whose leaves are the ids. It depends on the ids and
//! their order alone, not on how they were cut into shards. Memory is one hash a level.

use sha2::{Digest as _, Sha256};

use crate::RecordId;

/// Grows with every id; gives the root at any time.
#[derive(Debug, Clone, Default)]
pub struct MerkleTree {
    /// Roots of whole subtrees, each of a power of two of leaves, the largest first.
    peaks: Vec<[u8; 32]>,
    leaves: u64,
}

impl MerkleTree {
    /// Appends an id.
    pub fn push(&mut self, id: RecordId) {
        let mut hash: [u8; 32] = Sha256::new().chain_update([0]).chain_update(id.0).finalize().into();
        // As in a binary counter: a carry joins two subtrees of one size.
        for _ in 0..self.leaves.trailing_ones() {
            let left = self.peaks.pop().expect("a one bit of the count is a subtree");
            hash = node(&left, &hash);
        }
        self.peaks.push(hash);
        self.leaves += 1;
    }

    /// The root over all ids so far; of none, the hash of nothing.
    #[must_use]
    pub fn root(&self) -> RecordId {
        let root = self.peaks.iter().rev().copied().reduce(|right, left| node(&left, &right));
        RecordId(root.unwrap_or_else(|| Sha256::digest([]).into()))
    }
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6962 section 2.1, word for word.
    fn by_definition(ids: &[RecordId]) -> [u8; 32] {
        match ids {
            [] => Sha256::digest([]).into(),
            [id] => Sha256::new().chain_update([0]).chain_update(id.0).finalize().into(),
            _ => {
                let split = ids.len().next_power_of_two() / 2;
                node(&by_definition(&ids[..split]), &by_definition(&ids[split..]))
            }
        }
    }

    #[test]
    fn the_root_is_that_of_the_definition() {
        let ids: Vec<RecordId> = (0..70u32).map(|i| RecordId::of(&i.to_le_bytes())).collect();
        let mut tree = MerkleTree::default();
        for count in 0..ids.len() {
            assert_eq!(tree.root().0, by_definition(&ids[..count]), "{count}");
            tree.push(ids[count]);
        }
    }

    #[test]
    fn another_order_or_another_count_is_another_root() {
        let root = |bytes: &[u8]| {
            let mut tree = MerkleTree::default();
            bytes.iter().for_each(|byte| tree.push(RecordId::of(&[*byte])));
            tree.root()
        };
        let roots = [root(b"ab"), root(b"ba"), root(b"abb"), root(b"a"), root(b"")];
        assert!((0..5).all(|i| (0..i).all(|j| roots[i] != roots[j])), "{roots:?}");
    }
}
