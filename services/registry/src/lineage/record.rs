//! The recording of nodes and edges: one transaction a request, and the same request again changes nothing.

use tidemill_proto::registry::v1::RecordLineageRequest;
use tidemill_proto::registry::v1::lineage_node::Type;

use super::Lineage;
use super::nodes::{self, MOST_IN_A_REQUEST};
use crate::draft::Draft;
use crate::error::Result;
use crate::violations::Violations;

impl Lineage {
    /// Adds nodes and edges. Edges lie between nodes of the request, or nodes recorded before.
    pub(crate) async fn record(&self, request: &RecordLineageRequest) -> Result<()> {
        check(request)?;
        for attempt in 1.. {
            let mut draft = Draft::new(&*self.store);
            for node in &request.nodes {
                nodes::put_node(&mut draft, node).await?;
            }
            self.check_ends(request, &mut draft).await?;
            for edge in &request.edges {
                nodes::put_edge(&mut draft, edge).await?;
            }
            if draft.commit(attempt).await?.is_some() {
                break;
            }
        }
        Ok(())
    }

    async fn check_ends(&self, request: &RecordLineageRequest, draft: &mut Draft<'_>) -> Result<()> {
        let mut wrong = Violations::default();
        for (index, edge) in request.edges.iter().enumerate() {
            for (end, id) in [("parent", &edge.parent), ("child", &edge.child)] {
                if !nodes::has_node(draft, id).await? {
                    wrong.add(format!("edges[{index}].{end}"), format!("{id} is no known node; send it in `nodes`"));
                }
            }
        }
        wrong.check()
    }
}

fn check(request: &RecordLineageRequest) -> Result<()> {
    let mut wrong = Violations::default();
    let count = request.nodes.len() + request.edges.len();
    if count > MOST_IN_A_REQUEST {
        wrong.add("nodes", format!("{count} nodes and edges; send at most {MOST_IN_A_REQUEST} at once"));
    }
    for (index, node) in request.nodes.iter().enumerate() {
        let field = |name: &str| format!("nodes[{index}].{name}");
        if node.id.starts_with("sha256:") {
            wrong.digest(&field("id"), &node.id);
        } else {
            wrong.required(&field("id"), &node.id);
        }
        if matches!(Type::try_from(node.r#type), Err(_) | Ok(Type::Unspecified)) {
            wrong.add(field("type"), "say what it is");
        }
        if !node.record_index_digest.is_empty() {
            wrong.digest(&field("record_index_digest"), &node.record_index_digest);
        }
    }
    for (index, edge) in request.edges.iter().enumerate() {
        wrong.required(&format!("edges[{index}].parent"), &edge.parent);
        wrong.required(&format!("edges[{index}].child"), &edge.child);
        if edge.parent == edge.child {
            wrong.add(format!("edges[{index}].child"), "nothing comes from itself");
        }
    }
    wrong.check()
}
