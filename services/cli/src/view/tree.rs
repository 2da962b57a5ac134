//! Lineage as a tree with box characters.

use std::collections::{BTreeMap, BTreeSet};

use tidemill_proto::registry::v1::lineage_node::Type;
use tidemill_proto::registry::v1::{GetLineageResponse, LineageNode};

use crate::words;

/// Draws what a node came from, and what came from it.
pub(crate) fn draw(lineage: &GetLineageResponse) -> String {
    let graph = Graph::new(lineage);
    let Some(root) = &lineage.root else { return String::new() };
    let mut text = graph.label(&root.id);
    for (title, towards) in [("came from", &graph.parents), ("led to", &graph.children)] {
        if towards.contains_key(root.id.as_str()) {
            text.push_str(&format!("\n{title}"));
            graph.branches(&root.id, towards, "", &mut BTreeSet::from([root.id.as_str()]), &mut text);
        }
    }
    text
}

struct Graph<'a> {
    nodes: BTreeMap<&'a str, &'a LineageNode>,
    parents: BTreeMap<&'a str, BTreeSet<&'a str>>,
    children: BTreeMap<&'a str, BTreeSet<&'a str>>,
}

impl<'a> Graph<'a> {
    fn new(lineage: &'a GetLineageResponse) -> Self {
        let mut nodes: BTreeMap<&str, &LineageNode> =
            lineage.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
        nodes.extend(lineage.root.iter().map(|node| (node.id.as_str(), node)));
        let (mut parents, mut children) = (BTreeMap::<_, BTreeSet<_>>::new(), BTreeMap::<_, BTreeSet<_>>::new());
        for edge in &lineage.edges {
            parents.entry(edge.child.as_str()).or_default().insert(edge.parent.as_str());
            children.entry(edge.parent.as_str()).or_default().insert(edge.child.as_str());
        }
        Self { nodes, parents, children }
    }

    fn branches(
        &self,
        of: &str,
        towards: &BTreeMap<&'a str, BTreeSet<&'a str>>,
        indent: &str,
        seen: &mut BTreeSet<&'a str>,
        text: &mut String,
    ) {
        let Some(next) = towards.get(of) else { return };
        for (at, id) in next.iter().enumerate() {
            let last = at + 1 == next.len();
            let (corner, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
            let first = seen.insert(id);
            let leads_on = towards.contains_key(id);
            let again = if first || !leads_on { "" } else { "  (drawn above)" };
            text.push_str(&format!("\n{indent}{corner}{}{again}", self.label(id)));
            if first {
                self.branches(id, towards, &format!("{indent}{below}"), seen, text);
            }
        }
    }

    fn label(&self, id: &str) -> String {
        let Some(node) = self.nodes.get(id) else { return words::digest(id) };
        let kind = match node.r#type() {
            Type::Unspecified => "node",
            Type::Source => "source",
            Type::Record => "record",
            Type::Feedback => "feedback",
            Type::Dataset => "dataset",
            Type::PreparedDataset => "prepared dataset",
            Type::Tokenizer => "tokenizer",
            Type::TrainingJob => "training job",
            Type::Model => "model",
            Type::Evaluation => "evaluation",
        };
        let mut parts = vec![kind.to_owned()];
        if !node.resource.is_empty() {
            parts.push(node.resource.clone());
        }
        if node.id != node.resource {
            parts.push(words::digest(&node.id));
        }
        let attributes: Vec<String> =
            node.attributes.iter().map(|(k, v)| format!("{k} {}", words::excerpt(v, 40))).collect();
        if !attributes.is_empty() {
            parts.push(format!("({})", attributes.join(", ")));
        }
        parts.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use tidemill_proto::registry::v1::LineageEdge;

    use super::*;

    fn node(id: &str, r#type: Type, resource: &str) -> LineageNode {
        let mut node = LineageNode { id: id.to_owned(), resource: resource.to_owned(), ..Default::default() };
        node.set_type(r#type);
        node
    }

    fn edge(parent: &str, child: &str) -> LineageEdge {
        LineageEdge { parent: parent.to_owned(), child: child.to_owned() }
    }

    #[test]
    fn a_model_is_drawn_with_both_directions_and_no_branch_twice() {
        let digest = |letter: &str| format!("sha256:{}", letter.repeat(64));
        let (model, prepared, tokenizer, raw) = (digest("a"), digest("b"), digest("c"), digest("d"));
        let mut source = node("dataSources/s", Type::Source, "dataSources/s");
        source.attributes.insert("license".to_owned(), "CC0-1.0".to_owned());
        let root = node(&model, Type::Model, "models/m/versions/1");
        let response = GetLineageResponse {
            root: Some(root.clone()),
            nodes: vec![
                root,
                node(&prepared, Type::PreparedDataset, ""),
                node(&tokenizer, Type::Tokenizer, ""),
                node(&raw, Type::Dataset, "datasets/s/versions/1"),
                source,
                node("evaluations/e", Type::Evaluation, "evaluations/e"),
            ],
            edges: vec![
                edge(&prepared, &model),
                edge(&tokenizer, &prepared),
                edge(&raw, &prepared),
                edge(&raw, &tokenizer),
                edge("dataSources/s", &raw),
                edge(&model, "evaluations/e"),
            ],
        };
        let expected = "\
model models/m/versions/1 sha256:aaaaaaaaaaaa
came from
└─ prepared dataset sha256:bbbbbbbbbbbb
   ├─ tokenizer sha256:cccccccccccc
   │  └─ dataset datasets/s/versions/1 sha256:dddddddddddd
   │     └─ source dataSources/s (license CC0-1.0)
   └─ dataset datasets/s/versions/1 sha256:dddddddddddd  (drawn above)
led to
└─ evaluation evaluations/e";
        assert_eq!(draw(&response), expected);
    }

    #[test]
    fn a_circle_ends() {
        let (a, b) = (node("a", Type::Model, ""), node("b", Type::Model, ""));
        let edges = vec![edge("a", "b"), edge("b", "a")];
        let text = draw(&GetLineageResponse { root: Some(a.clone()), nodes: vec![a, b], edges });
        assert!(text.lines().count() < 10, "{text}");
    }
}
