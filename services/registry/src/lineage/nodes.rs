//! How the graph lies in the store: everything is found by name, so a walk costs the same in a large graph as in a small one.
//!
//! `lineageNodes/<key>` is a node with the number of its pages; `<node>/parents/<n>` and `<node>/children/<n>` are pages of neighbours;
//! `lineageEdges/<key>` says that an edge is there. `lineageNames/<key>`, `lineagePrefixes/<12 digits>` and `lineageIndexes/<key>` find
//! nodes by resource name, by the beginning of their digest, and by the records they hold. A key is the sha256 of what it stands for.

use bytes::Bytes;
use prost::Message;
use tidemill_artifacts::Digest;
use tidemill_proto::registry::v1::{LineageEdge, LineageNode};
use tidemill_resources::{List, Store};

use super::Lineage;
use crate::draft::Draft;
use crate::error::Result;

/// Neighbours on a page.
const PAGE: usize = 256;
/// Nodes and edges together that one request may record: they are one transaction.
pub(super) const MOST_IN_A_REQUEST: usize = 10_000;
/// Hex digits that find a node.
pub(super) const PREFIX: usize = 12;

/// A node as it is stored.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StoredNode {
    #[prost(message, optional, tag = "1")]
    pub(super) node: Option<LineageNode>,
    #[prost(uint32, tag = "2")]
    parent_pages: u32,
    #[prost(uint32, tag = "3")]
    child_pages: u32,
}

/// A list of node ids.
#[derive(Clone, PartialEq, prost::Message)]
struct Ids {
    #[prost(string, repeated, tag = "1")]
    ids: Vec<String>,
}

/// Datasets whose records have one index.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Indexed {
    #[prost(string, tag = "1")]
    pub(super) index_digest: String,
    #[prost(string, repeated, tag = "2")]
    pub(super) nodes: Vec<String>,
}

/// Which neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// What it came from.
    Parents,
    /// What came from it.
    Children,
}

impl Lineage {
    /// The node of an id.
    pub(super) async fn node(&self, id: &str) -> Result<Option<StoredNode>> {
        let name = node_name(id);
        self.body(&name).await?.map(|body| decode(&name, &body)).transpose()
    }

    /// The id of the node with a resource name.
    pub(super) async fn id_of_resource(&self, resource: &str) -> Result<Option<String>> {
        let name = key("lineageNames", resource);
        let ids: Option<Ids> = self.body(&name).await?.map(|body| decode(&name, &body)).transpose()?;
        Ok(ids.and_then(|ids| ids.ids.into_iter().next()))
    }

    /// Ids whose digests begin with these digits, of which there are at least [`PREFIX`].
    pub(super) async fn ids_of_prefix(&self, digits: &str) -> Result<Vec<String>> {
        let name = format!("lineagePrefixes/{}", &digits[..PREFIX]);
        let ids: Option<Ids> = self.body(&name).await?.map(|body| decode(&name, &body)).transpose()?;
        let wanted = format!("sha256:{digits}");
        Ok(ids.unwrap_or_default().ids.into_iter().filter(|id| id.starts_with(&wanted)).collect())
    }

    /// All neighbours of a node on one side.
    pub(super) async fn neighbours(&self, id: &str, stored: &StoredNode, side: Side) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for page in 0..stored.pages(side) {
            let name = page_name(id, side, page);
            if let Some(body) = self.body(&name).await? {
                all.extend(decode::<Ids>(&name, &body)?.ids);
            }
        }
        Ok(all)
    }

    /// Every index of records, with the datasets that have it.
    pub(super) async fn indexes(&self) -> Result<Vec<Indexed>> {
        let (mut all, mut after, limit) = (Vec::new(), None, 1000);
        loop {
            let collection = "lineageIndexes/-".to_owned();
            let list = List { collection, name_prefix: String::new(), limit, after: after.take() };
            let records = self.store.list(list).await?;
            for record in &records {
                all.push(decode(&record.name, &record.body)?);
            }
            match records.last() {
                Some(last) if records.len() == limit => after = Some((last.create_micros, last.name.clone())),
                _ => return Ok(all),
            }
        }
    }

    async fn body(&self, name: &str) -> Result<Option<Bytes>> {
        read(&*self.store, name).await
    }
}

impl StoredNode {
    fn pages(&self, side: Side) -> u32 {
        match side {
            Side::Parents => self.parent_pages,
            Side::Children => self.child_pages,
        }
    }
}

/// Whether a draft has a node.
pub(super) async fn has_node(draft: &mut Draft<'_>, id: &str) -> Result<bool> {
    Ok(draft.read(&node_name(id)).await?.is_some())
}

/// Adds a node to a draft, or fills in what a known one lacks.
pub(super) async fn put_node(draft: &mut Draft<'_>, node: &LineageNode) -> Result<()> {
    let name = node_name(&node.id);
    let mut stored: StoredNode = of_draft(draft, &name).await?.unwrap_or_default();
    let merged = merge(stored.node.take(), node);
    stored.node = Some(merged);
    draft.write(&name, stored.encode_to_vec());
    if !node.resource.is_empty() {
        draft_ids(draft, &key("lineageNames", &node.resource), &node.id).await?;
    }
    if let Some(digits) = node.id.strip_prefix("sha256:").filter(|digits| digits.len() == 64) {
        draft_ids(draft, &format!("lineagePrefixes/{}", &digits[..PREFIX]), &node.id).await?;
    }
    if !node.record_index_digest.is_empty() {
        let name = key("lineageIndexes", &node.record_index_digest);
        let mut indexed: Indexed = of_draft(draft, &name).await?.unwrap_or_default();
        if !indexed.nodes.contains(&node.id) {
            indexed.index_digest.clone_from(&node.record_index_digest);
            indexed.nodes.push(node.id.clone());
            draft.write(&name, indexed.encode_to_vec());
        }
    }
    Ok(())
}

/// Adds an edge between nodes of a draft; one that is there changes nothing.
pub(super) async fn put_edge(draft: &mut Draft<'_>, edge: &LineageEdge) -> Result<()> {
    let name = key("lineageEdges", &format!("{}\0{}", edge.parent, edge.child));
    if draft.read(&name).await?.is_some() {
        return Ok(());
    }
    draft.write(&name, edge.encode_to_vec());
    put_neighbour(draft, &edge.parent, Side::Children, &edge.child).await?;
    put_neighbour(draft, &edge.child, Side::Parents, &edge.parent).await
}

async fn put_neighbour(draft: &mut Draft<'_>, id: &str, side: Side, neighbour: &str) -> Result<()> {
    let name = node_name(id);
    let mut stored: StoredNode = of_draft(draft, &name).await?.unwrap_or_default();
    let last = stored.pages(side).saturating_sub(1);
    let mut page: Ids = of_draft(draft, &page_name(id, side, last)).await?.unwrap_or_default();
    let at = if page.ids.len() < PAGE {
        last
    } else {
        page = Ids::default();
        last + 1
    };
    if at + 1 > stored.pages(side) {
        match side {
            Side::Parents => stored.parent_pages = at + 1,
            Side::Children => stored.child_pages = at + 1,
        }
        draft.write(&name, stored.encode_to_vec());
    }
    // A new page is read too: if another process makes it at the same time, one of the two begins again.
    draft.read(&page_name(id, side, at)).await?;
    page.ids.push(neighbour.to_owned());
    draft.write(&page_name(id, side, at), page.encode_to_vec());
    Ok(())
}

async fn draft_ids(draft: &mut Draft<'_>, name: &str, id: &str) -> Result<()> {
    let mut ids: Ids = of_draft(draft, name).await?.unwrap_or_default();
    if !ids.ids.iter().any(|known| known == id) {
        ids.ids.push(id.to_owned());
        draft.write(name, ids.encode_to_vec());
    }
    Ok(())
}

/// What is known already stays; what was missing is filled in.
fn merge(known: Option<LineageNode>, new: &LineageNode) -> LineageNode {
    let Some(mut node) = known else { return new.clone() };
    if node.resource.is_empty() {
        node.resource.clone_from(&new.resource);
    }
    if node.record_index_digest.is_empty() {
        node.record_index_digest.clone_from(&new.record_index_digest);
    }
    for (name, value) in &new.attributes {
        node.attributes.entry(name.clone()).or_insert_with(|| value.clone());
    }
    node
}

async fn of_draft<M: Message + Default>(draft: &mut Draft<'_>, name: &str) -> Result<Option<M>> {
    draft.read(name).await?.map(|body| decode(name, &body)).transpose()
}

async fn read(store: &dyn Store, name: &str) -> Result<Option<Bytes>> {
    match store.get(name).await {
        Ok(record) => Ok(Some(record.body)),
        Err(tidemill_resources::Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn decode<M: Message + Default>(name: &str, body: &Bytes) -> Result<M> {
    let corrupt = |error: prost::DecodeError| tidemill_resources::Error::Corrupt {
        name: name.to_owned(),
        reason: error.to_string(),
    };
    Ok(M::decode(body.clone()).map_err(corrupt)?)
}

fn key(collection: &str, of: &str) -> String {
    format!("{collection}/{}", Digest::of(of).hex())
}

fn node_name(id: &str) -> String {
    key("lineageNodes", id)
}

fn page_name(id: &str, side: Side, page: u32) -> String {
    let side = match side {
        Side::Parents => "parents",
        Side::Children => "children",
    };
    format!("{}/{side}/{page}", node_name(id))
}
