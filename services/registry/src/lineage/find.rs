//! From what somebody typed to a node: a name, a digest, the beginning of one, or a record of some dataset.

use tidemill_artifacts::Digest;
use tidemill_proto::registry::v1::LineageNode;
use tidemill_proto::registry::v1::lineage_node::Type;

use super::Lineage;
use super::nodes::{Indexed, PREFIX};
use crate::error::{Error, Result};

/// Bytes of a record's digest in an index.
const WIDTH: u64 = 32;
/// Ids read at once when the search has narrowed this far.
const WINDOW: u64 = 2048;

/// What was found.
pub(super) enum Found {
    /// A node of the graph.
    Node(String),
    /// A record, and the nodes of the datasets that hold it.
    Record {
        /// The record: `sha256:...`.
        id: String,
        /// Ids of datasets' nodes.
        holders: Vec<String>,
    },
}

impl Lineage {
    /// Finds what a text names.
    pub(super) async fn find(&self, text: &str) -> Result<Found> {
        if self.node(text).await?.is_some() {
            return Ok(Found::Node(text.to_owned()));
        }
        if let Some(id) = self.id_of_resource(text).await? {
            return Ok(Found::Node(id));
        }
        let digits = text.strip_prefix("sha256:").unwrap_or(text).to_ascii_lowercase();
        let is_digest = (PREFIX..=64).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_digest {
            return Err(Error::Unknown(text.to_owned()));
        }
        let mut ids = self.ids_of_prefix(&digits).await?;
        match ids.len() {
            0 => {}
            1 => return Ok(Found::Node(ids.remove(0))),
            _ => return Err(Error::Ambiguous(text.to_owned(), ids.join(", "))),
        }
        self.find_record(text, &digits).await
    }

    async fn find_record(&self, text: &str, digits: &str) -> Result<Found> {
        let (mut records, mut holders) = (Vec::new(), Vec::new());
        for Indexed { index_digest, nodes } in self.indexes().await? {
            let held = self.search(&index_digest.parse()?, digits).await?;
            if !held.is_empty() {
                holders.extend(nodes);
                records.extend(held);
            }
        }
        records.sort();
        records.dedup();
        match records.as_slice() {
            [] => Err(Error::Unknown(text.to_owned())),
            [id] => Ok(Found::Record { id: id.clone(), holders }),
            _ => Err(Error::Ambiguous(text.to_owned(), records.join(", "))),
        }
    }

    /// Records of an index that begin with these digits: a binary search by ranges, so a large index is never read whole.
    async fn search(&self, index: &Digest, digits: &str) -> Result<Vec<String>> {
        let Some(size) = self.artifacts.size(index).await? else {
            // Lineage outlives data that was removed.
            return Ok(Vec::new());
        };
        let (mut low, mut high) = (0, size / WIDTH);
        while high - low > WINDOW {
            let middle = low + (high - low) / 2;
            let id = self.artifacts.get_range(index, middle * WIDTH..(middle + 1) * WIDTH).await?;
            if hex::encode(&id).as_str() < digits {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        // The first match is in the window, or right after it; a few digits may match more than one.
        let end = (high + WINDOW).min(size / WIDTH);
        let window = self.artifacts.get_range(index, low * WIDTH..end * WIDTH).await?;
        let ids = window.chunks_exact(WIDTH as usize).map(hex::encode);
        Ok(ids.filter(|id| id.starts_with(digits)).map(|id| format!("sha256:{id}")).take(3).collect())
    }
}

/// A record as a node: it has none of its own, since there may be millions.
pub(super) fn record_node(id: &str, holders: usize) -> LineageNode {
    let attributes = [("datasets".to_owned(), holders.to_string())].into();
    let mut node = LineageNode { id: id.to_owned(), attributes, ..LineageNode::default() };
    node.set_type(Type::Record);
    node
}
