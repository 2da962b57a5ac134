//! The walk: from a node to all it came from, to all that came from it, or both.

use std::collections::{BTreeSet, VecDeque};

use tidemill_proto::registry::v1::get_lineage_request::Direction;
use tidemill_proto::registry::v1::lineage_node::Type;
use tidemill_proto::registry::v1::{GetLineageRequest, GetLineageResponse, LineageEdge, LineageNode};

use super::Lineage;
use super::find::{Found, record_node};
use super::nodes::Side;
use crate::error::{Error, Result};

/// Edges from the start where the caller sets no limit.
const DEPTH: i32 = 32;
/// Most nodes in an answer; the root's attribute `truncated` says that there were more.
const MOST: usize = 5000;

/// What was reached so far.
struct Walk {
    nodes: Vec<LineageNode>,
    known: BTreeSet<String>,
    edges: Vec<LineageEdge>,
    seen_edges: BTreeSet<(String, String)>,
    truncated: bool,
}

impl Lineage {
    /// Walks from a digest or name.
    pub(crate) async fn walk(&self, request: &GetLineageRequest) -> Result<GetLineageResponse> {
        let depth = match request.max_depth {
            0 => DEPTH,
            depth if depth > 0 => depth,
            depth => {
                return Err(Error::invalid("max_depth", format!("{depth} is negative; use 0 for the usual depth")));
            }
        };
        let direction = Direction::try_from(request.direction)
            .map_err(|_| Error::invalid("direction", format!("{} is not a direction", request.direction)))?;
        let mut walk = match self.find(&request.id).await? {
            Found::Node(id) => {
                let stored = self.node(&id).await?.ok_or_else(|| Error::Unknown(id.clone()))?;
                let mut walk = Walk::from(stored.node.unwrap_or_default());
                if direction != Direction::Forth {
                    self.go(&mut walk, vec![id.clone()], Side::Parents, depth, &|_| true).await?;
                }
                if direction != Direction::Back {
                    self.go(&mut walk, vec![id], Side::Children, depth, &|_| true).await?;
                }
                walk
            }
            Found::Record { id, holders } => self.walk_from_record(&id, &holders, direction, depth).await?,
        };
        let root = walk.nodes.first_mut().expect("a walk begins with its root");
        if walk.truncated {
            root.attributes.insert("truncated".to_owned(), format!("only the first {MOST} nodes are listed"));
        }
        Ok(GetLineageResponse { root: Some(root.clone()), nodes: walk.nodes, edges: walk.edges })
    }

    /// From a record to the datasets that hold it, and on to what came from them; but not into prepared datasets that dropped it.
    async fn walk_from_record(&self, id: &str, holders: &[String], direction: Direction, depth: i32) -> Result<Walk> {
        let mut walk = Walk::from(record_node(id, holders.len()));
        if direction == Direction::Back {
            return Ok(walk);
        }
        let held: BTreeSet<&String> = holders.iter().collect();
        let mut raw = Vec::new();
        let mut first = Vec::new();
        for holder in holders {
            if let Some(node) = self.node(holder).await?.and_then(|stored| stored.node) {
                if node.r#type() == Type::Dataset {
                    raw.push(node.clone());
                }
                first.push(node);
            }
        }
        // Prepared datasets are reached through the raw ones; they are named directly only where no raw one is known.
        let first = if raw.is_empty() { first } else { raw };
        let starts: Vec<String> = first.iter().map(|node| node.id.clone()).collect();
        for node in first {
            walk.edge(id, &node.id);
            walk.node(node);
        }
        let holds = |node: &LineageNode| node.record_index_digest.is_empty() || held.contains(&node.id);
        self.go(&mut walk, starts, Side::Children, depth - 1, &holds).await?;
        Ok(walk)
    }

    async fn go(
        &self,
        walk: &mut Walk,
        starts: Vec<String>,
        side: Side,
        depth: i32,
        enter: &(dyn Fn(&LineageNode) -> bool + Sync),
    ) -> Result<()> {
        let mut visited: BTreeSet<String> = starts.iter().cloned().collect();
        let mut queue: VecDeque<(String, i32)> = starts.into_iter().map(|id| (id, 0)).collect();
        while let Some((id, distance)) = queue.pop_front() {
            let Some(stored) = self.node(&id).await? else { continue };
            if distance >= depth {
                continue;
            }
            for neighbour in self.neighbours(&id, &stored, side).await? {
                let Some(node) = self.node(&neighbour).await?.and_then(|stored| stored.node) else { continue };
                if !enter(&node) {
                    continue;
                }
                if !walk.node(node) {
                    return Ok(());
                }
                match side {
                    Side::Parents => walk.edge(&neighbour, &id),
                    Side::Children => walk.edge(&id, &neighbour),
                }
                if visited.insert(neighbour.clone()) {
                    queue.push_back((neighbour, distance + 1));
                }
            }
        }
        Ok(())
    }
}

impl Walk {
    fn from(root: LineageNode) -> Self {
        let known = [root.id.clone()].into();
        Self { nodes: vec![root], known, edges: Vec::new(), seen_edges: BTreeSet::new(), truncated: false }
    }

    /// Adds a node; false where there is no more room.
    fn node(&mut self, node: LineageNode) -> bool {
        if self.known.contains(&node.id) {
            return true;
        }
        if self.nodes.len() >= MOST {
            self.truncated = true;
            return false;
        }
        self.known.insert(node.id.clone());
        self.nodes.push(node);
        true
    }

    fn edge(&mut self, parent: &str, child: &str) {
        if self.seen_edges.insert((parent.to_owned(), child.to_owned())) {
            self.edges.push(LineageEdge { parent: parent.to_owned(), child: child.to_owned() });
        }
    }
}
