//! Lineage: recorded once, walked both ways, down to single records.

use tidemill_proto::registry::v1::get_lineage_request::Direction;
use tidemill_proto::registry::v1::lineage_node::Type;

use super::*;

fn node(id: &str, kind: Type) -> LineageNode {
    let mut node = LineageNode { id: id.to_owned(), ..LineageNode::default() };
    node.set_type(kind);
    node
}

fn edge(parent: &str, child: &str) -> LineageEdge {
    LineageEdge { parent: parent.to_owned(), child: child.to_owned() }
}

impl Registry {
    async fn record(&mut self, nodes: Vec<LineageNode>, edges: Vec<LineageEdge>) -> Result<(), Status> {
        self.client.record_lineage(RecordLineageRequest { nodes, edges }).await.map(|_| ())
    }

    async fn lineage(&mut self, id: &str, direction: Direction, max_depth: i32) -> Result<GetLineageResponse, Status> {
        let request = GetLineageRequest { id: id.to_owned(), direction: direction.into(), max_depth };
        Ok(self.client.get_lineage(request).await?.into_inner())
    }

    /// Ids reached, the root first.
    async fn ids(&mut self, id: &str, direction: Direction) -> Vec<String> {
        let response = self.lineage(id, direction, 0).await.unwrap();
        response.nodes.into_iter().map(|node| node.id).collect()
    }

    async fn index(&self, records: &[[u8; 32]]) -> String {
        let mut records = records.to_vec();
        records.sort_unstable();
        self.platform.artifacts.put(records.concat()).await.unwrap().0.to_string()
    }
}

/// source -> raw -> prepared -> model 1 -> model 2 <- prepared 2 <- feedback's raw <- feedback/f
async fn with_two_turns() -> Registry {
    let mut registry = registry().await;
    let d = |text: &str| digest(text);
    let mut model = node(&d("model 1"), Type::Model);
    model.resource = "models/m/versions/1".to_owned();
    let nodes = vec![
        node("dataSources/s", Type::Source),
        node(&d("raw"), Type::Dataset),
        node(&d("prepared"), Type::PreparedDataset),
        model,
        node("feedback/f", Type::Feedback),
        node(&d("feedback raw"), Type::Dataset),
        node(&d("prepared 2"), Type::PreparedDataset),
        node(&d("model 2"), Type::Model),
    ];
    let edges = vec![
        edge("dataSources/s", &d("raw")),
        edge(&d("raw"), &d("prepared")),
        edge(&d("prepared"), &d("model 1")),
        edge("feedback/f", &d("feedback raw")),
        edge(&d("feedback raw"), &d("prepared 2")),
        edge(&d("raw"), &d("prepared 2")),
        edge(&d("prepared 2"), &d("model 2")),
        edge(&d("model 1"), &d("model 2")),
    ];
    registry.record(nodes, edges).await.unwrap();
    registry
}

#[tokio::test]
async fn a_walk_goes_back_forth_and_both_ways() {
    let mut registry = with_two_turns().await;
    let back = registry.ids(&digest("model 2"), Direction::Back).await;
    assert_eq!(back.len(), 8, "{back:?}");
    assert_eq!(back[0], digest("model 2"));
    let forth = registry.ids("feedback/f", Direction::Forth).await;
    assert_eq!(forth, ["feedback/f".to_owned(), digest("feedback raw"), digest("prepared 2"), digest("model 2")]);
    // Both ways is what it came from and what came from it, not the whole neighbourhood.
    let both = registry.ids(&digest("model 1"), Direction::Unspecified).await;
    let mut expected =
        vec![digest("model 1"), digest("prepared"), digest("raw"), "dataSources/s".to_owned(), digest("model 2")];
    assert_eq!(both.len(), expected.len(), "{both:?}");
    expected.retain(|id| !both.contains(id));
    assert!(expected.is_empty(), "{expected:?} are missing");

    let near = registry.lineage(&digest("model 2"), Direction::Back, 1).await.unwrap();
    assert_eq!((near.nodes.len(), near.edges.len()), (3, 2));
    assert_eq!(
        registry.lineage(&digest("model 2"), Direction::Back, -1).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

#[tokio::test]
async fn a_node_is_found_by_name_by_digest_and_by_the_beginning_of_its_digest() {
    let mut registry = with_two_turns().await;
    let model = digest("model 1");
    let digits = &model["sha256:".len()..];
    for id in ["models/m/versions/1", &model, &model[..19], digits, &digits[..12]] {
        let root = registry.lineage(id, Direction::Back, 0).await.unwrap().root.unwrap();
        assert_eq!(root.id, model, "asked for {id}");
    }
    for id in ["models/m/versions/9", &digest("unknown"), &digits[..11], "x"] {
        let status = registry.lineage(id, Direction::Back, 0).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{id}: {status:?}");
    }
}

#[tokio::test]
async fn recording_again_changes_nothing_but_fills_in_what_was_missing() {
    let mut registry = with_two_turns().await;
    let before = registry.lineage(&digest("model 2"), Direction::Back, 0).await.unwrap();
    let mut again = node(&digest("model 2"), Type::Model);
    again.resource = "models/m/versions/2".to_owned();
    let parents = [digest("prepared 2"), digest("model 1")];
    let edges = parents.iter().map(|parent| edge(parent, &digest("model 2"))).collect::<Vec<_>>();
    for _ in 0..2 {
        registry.record(vec![again.clone()], edges.clone()).await.unwrap();
    }
    let after = registry.lineage(&digest("model 2"), Direction::Back, 0).await.unwrap();
    assert_eq!(after.edges, before.edges);
    assert_eq!(after.root.unwrap().resource, "models/m/versions/2");
}

#[tokio::test]
async fn an_edge_to_nowhere_and_a_nameless_node_are_refused() {
    let mut registry = with_two_turns().await;
    let status = registry.record(vec![], vec![edge(&digest("raw"), "feedback/new")]).await.unwrap_err();
    assert_eq!(fields(&status), ["edges[0].child"]);
    let nodes = vec![node("", Type::Model), node("sha256:12", Type::Unspecified)];
    let status = registry.record(nodes, vec![edge("a", "a")]).await.unwrap_err();
    assert_eq!(fields(&status), ["nodes[0].id", "nodes[1].id", "nodes[1].type", "edges[0].child"]);
}

#[tokio::test]
async fn a_node_may_have_more_neighbours_than_fit_on_a_page() {
    let mut registry = registry().await;
    let count = 600;
    let children: Vec<String> = (0..count).map(|index| format!("feedback/{index}")).collect();
    for part in children.chunks(250) {
        let mut nodes = vec![node("dataSources/s", Type::Source)];
        nodes.extend(part.iter().map(|id| node(id, Type::Feedback)));
        let edges = part.iter().map(|id| edge("dataSources/s", id)).collect();
        registry.record(nodes, edges).await.unwrap();
    }
    let reached = registry.ids("dataSources/s", Direction::Forth).await;
    assert_eq!(reached[1..], children);
}

#[tokio::test]
async fn a_record_leads_forth_to_the_models_that_saw_it() {
    let mut registry = with_two_turns().await;
    // Enough records that the search needs steps; one of them was dropped in preparation.
    let records: Vec<[u8; 32]> =
        (0..9000_u32).map(|index| *tidemill_artifacts::Digest::of(index.to_le_bytes()).as_bytes()).collect();
    let (kept, dropped) = (records[17], records[4321]);
    let all = registry.index(&records).await;
    let without: Vec<[u8; 32]> = records.iter().copied().filter(|record| *record != dropped).collect();
    let prepared = registry.index(&without).await;
    let with_index = |text: &str, kind, index: &str| {
        let mut node = node(&digest(text), kind);
        node.record_index_digest = index.to_owned();
        node
    };
    let nodes = vec![
        with_index("raw", Type::Dataset, &all),
        with_index("prepared", Type::PreparedDataset, &prepared),
        with_index("prepared 2", Type::PreparedDataset, &prepared),
    ];
    registry.record(nodes, vec![]).await.unwrap();

    let id = tidemill_artifacts::Digest::from(kept).to_string();
    for asked in [id.as_str(), &id[..19]] {
        let found = registry.lineage(asked, Direction::Unspecified, 0).await.unwrap();
        let root = found.root.unwrap();
        assert_eq!((root.id.as_str(), root.r#type()), (id.as_str(), Type::Record));
        let reached: Vec<&str> = found.nodes.iter().map(|node| node.id.as_str()).collect();
        for model in ["model 1", "model 2"] {
            assert!(reached.contains(&digest(model).as_str()), "{model} not in {reached:?}");
        }
        assert!(found.edges.contains(&edge(&id, &digest("raw"))));
        assert!(!found.edges.contains(&edge(&id, &digest("prepared"))));
    }

    let dropped = tidemill_artifacts::Digest::from(dropped).to_string();
    let reached = registry.ids(&dropped, Direction::Forth).await;
    assert_eq!(reached, [dropped.clone(), digest("raw")], "no model saw what was dropped");
}

#[tokio::test(flavor = "multi_thread")]
async fn recordings_at_the_same_time_lose_no_edge() {
    let mut registry = with_two_turns().await;
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..8 {
        let mut client = registry.client.clone();
        tasks.spawn(async move {
            let id = format!("evaluations/{index}");
            let request = RecordLineageRequest {
                nodes: vec![node(&id, Type::Evaluation)],
                edges: vec![edge(&digest("model 2"), &id)],
            };
            client.record_lineage(request).await.unwrap();
        });
    }
    tasks.join_all().await;
    assert_eq!(registry.ids(&digest("model 2"), Direction::Forth).await.len(), 9);
}
