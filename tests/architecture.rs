//! The design's rules as tests: floors, who links what, the graph of calls, the table of topics, and the walks of ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};
use tidemill_proto::topics;

/// The floor of each crate; a crate imports only from floors below its own.
const FLOORS: &[&[&str]] = &[
    &["proto", "address", "torch", "faults"],
    &["chassis", "resources", "eventlog", "cache", "artifacts", "launcher", "models", "text", "dataset", "safety"],
    &["platform"],
    &["ingestion", "preprocessing", "training", "evaluation", "registry", "inference", "pipeline", "gateway"],
    &["standalone", "cli"],
    &["tests"],
];

/// Crates without I/O, clock or network.
const PURE: &[&str] = &["torch", "models", "text", "dataset", "safety"];

/// Who may depend directly on what.
const LINKS: &[(&str, &[&str])] = &[
    ("tch", &["torch", "models", "training", "evaluation", "inference", "standalone"]),
    ("rusqlite", &["resources", "eventlog"]),
    ("rdkafka", &["eventlog"]),
    ("redis", &["cache"]),
    ("tokio-postgres", &["resources"]),
    ("kube", &["launcher"]),
    ("object_store", &["artifacts"]),
    ("axum", &["chassis", "gateway"]),
    // Faults are for tests.
    ("tidemill-faults", &["tests"]),
];

/// Who calls whom: a change here is a change of the architecture.
const CALLS: &str = "\
evaluation -> registry
gateway -> evaluation, inference, ingestion, pipeline, preprocessing, registry, training
inference -> registry
ingestion -> registry
pipeline -> evaluation, inference, ingestion, preprocessing, registry, training
preprocessing -> registry
training -> registry
";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

fn metadata() -> Metadata {
    let manifest = root().join("Cargo.toml");
    MetadataCommand::new()
        .manifest_path(manifest)
        .other_options(vec!["--filter-platform=x86_64-unknown-linux-gnu".to_owned()])
        .exec()
        .unwrap()
}

fn short(package: &Package) -> &str {
    package.name.strip_prefix("tidemill-").expect("every crate of the workspace is called tidemill-<folder>")
}

fn dependencies(package: &Package) -> impl Iterator<Item = &str> {
    package.dependencies.iter().filter(|d| d.kind == DependencyKind::Normal).map(|d| d.name.as_str())
}

fn floor(name: &str) -> usize {
    FLOORS.iter().position(|floor| floor.contains(&name)).unwrap_or_else(|| panic!("{name} has no floor"))
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![folder.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[test]
fn crates_import_only_from_floors_below() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        for dependency in dependencies(package).filter_map(|name| name.strip_prefix("tidemill-")) {
            let (name, own, other) = (short(package), floor(short(package)), floor(dependency));
            assert!(other < own, "{name} (floor {own}) imports {dependency} (floor {other})");
        }
    }
}

#[test]
fn only_the_named_crates_link_the_heavy_libraries() {
    let metadata = metadata();
    for package in metadata.workspace_packages() {
        for (library, allowed) in LINKS {
            if dependencies(package).any(|name| name == *library) {
                assert!(allowed.contains(&short(package)), "{} must not depend on {library}", short(package));
            }
        }
    }
}

#[test]
fn pure_crates_stay_pure() {
    let metadata = metadata();
    for package in metadata.workspace_packages().into_iter().filter(|p| PURE.contains(&short(p))) {
        for banned in ["tokio", "tonic", "rdkafka", "reqwest", "jiff", "chrono", "tidemill-proto"] {
            assert!(!dependencies(package).any(|name| name == banned), "{} depends on {banned}", short(package));
        }
        for file in sources(&root().join("libs").join(short(package)).join("src")) {
            let text = std::fs::read_to_string(&file).unwrap();
            for banned in ["SystemTime::now", "Instant::now", "std::env::var"] {
                assert!(!text.contains(banned), "{} uses {banned}", file.display());
            }
        }
    }
}

#[test]
fn the_client_stays_light() {
    let metadata = metadata();
    let resolve = metadata.resolve.as_ref().unwrap();
    let by_id: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let cli = metadata.workspace_packages().into_iter().find(|p| short(p) == "cli").unwrap();
    let (mut seen, mut pending) = (BTreeSet::new(), vec![&cli.id]);
    while let Some(id) = pending.pop() {
        if seen.insert(id) {
            pending.extend(by_id[id].deps.iter().map(|dependency| &dependency.pkg));
        }
    }
    let names: BTreeSet<&str> = seen.iter().map(|id| metadata[id].name.as_str()).collect();
    for heavy in ["tch", "torch-sys", "rusqlite", "tokenizers", "parquet"] {
        assert!(!names.contains(heavy), "the client depends on {heavy}");
    }
}

#[test]
fn services_call_each_other_as_the_graph_says() {
    let mut graph = String::new();
    for service in FLOORS[3] {
        let mut callees: BTreeSet<&str> = BTreeSet::new();
        let own_tests = |file: &PathBuf| file.iter().any(|part| part == "tests" || part == "tests.rs");
        for file in sources(&root().join("services").join(service).join("src")).iter().filter(|f| !own_tests(f)) {
            let text: String = std::fs::read_to_string(file).unwrap().split_whitespace().collect();
            // By a client, or handed on at the edge.
            let called = |callee: &&str| {
                text.contains(&format!("clients.{callee}()"))
                    || text.contains(&format!("(\"{callee}\",{callee}_service_server::SERVICE_NAME)"))
            };
            callees.extend(FLOORS[3].iter().copied().filter(called));
        }
        if !callees.is_empty() {
            let callees = callees.into_iter().collect::<Vec<_>>().join(", ");
            graph.push_str(&format!("{service} -> {callees}\n"));
        }
    }
    let mut lines: Vec<&str> = graph.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.join("\n") + "\n", CALLS);
    assert_is_acyclic(&lines);
}

fn assert_is_acyclic(lines: &[&str]) {
    let mut edges: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in lines {
        let (caller, callees) = line.split_once(" -> ").unwrap();
        edges.insert(caller, callees.split(", ").collect());
    }
    fn visit<'a>(node: &'a str, edges: &BTreeMap<&str, Vec<&'a str>>, path: &mut Vec<&'a str>) {
        assert!(!path.contains(&node), "a cycle of calls: {path:?} -> {node}");
        path.push(node);
        for next in edges.get(node).into_iter().flatten() {
            visit(next, edges, path);
        }
        path.pop();
    }
    for caller in edges.keys() {
        visit(caller, &edges, &mut Vec::new());
    }
}

#[test]
fn the_table_of_topics_is_as_the_architecture_says() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for topic in topics::ALL {
        let payload = topic.payload.rsplit('.').next().unwrap();
        let consumers = if topic.consumers.is_empty() { "-".to_owned() } else { topic.consumers.join(", ") };
        let (partitions, days) = (topic.shape.partitions, topic.shape.retention_days);
        let row =
            format!("| `{}` | {payload} | {} | {consumers} | {partitions} | {days} |", topic.name, topic.producer);
        assert!(page.contains(&row), "ARCHITECTURE.md lacks the row\n{row}");
        assert!(tidemill_proto::pool().get_message_by_name(topic.payload).is_some(), "{} is no message", topic.payload);
    }
}

#[test]
fn every_step_of_the_walks_exists() {
    let page = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut steps = 0;
    for step in page.split('`').filter(|code| code.contains(".rs::")) {
        let (file, function) = step.split_once("::").unwrap();
        let text = std::fs::read_to_string(root().join(file)).unwrap_or_else(|_| panic!("{file} does not exist"));
        assert!(text.contains(&format!("fn {function}")), "{file} has no function {function}");
        steps += 1;
    }
    assert!(steps >= 16, "the two walks name {steps} steps");
}

#[test]
fn files_stay_small() {
    for folder in ["libs", "services", "tests"] {
        for file in sources(&root().join(folder)) {
            let lines = std::fs::read_to_string(&file).unwrap().lines().count();
            assert!(lines <= 450, "{} has {lines} lines: a long file is two ideas", file.display());
        }
    }
}
