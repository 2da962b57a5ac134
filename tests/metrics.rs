//! The table of metrics, its page, the sources and a running Tidemill say the same.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tidemill_chassis::metrics::TABLE;
use tidemill_sandbox::{Sandbox, corpus, eventually, mini_pipeline, run_to_end};

/// Metrics that a Tidemill on one machine tells only when something goes wrong, or with another adapter.
const SELDOM: &[&str] = &[
    "tidemill_consumer_dead_lettered_total",
    "tidemill_consumer_lag",
    "tidemill_consumer_retried_total",
    "tidemill_consumer_subscriptions_lost_total",
    "tidemill_dependency_failures_total",
    "tidemill_eventlog_append_duration_seconds",
    "tidemill_inference_requests_rejected_total",
    "tidemill_ingestion_messages_total",
    "tidemill_job_retries_total",
    "tidemill_outbox_failures_total",
    "tidemill_telemetry_spans_total",
    "tidemill_training_gpu_idle_ratio",
    "tidemill_training_gpu_memory_bytes",
    "tidemill_training_mfu_ratio",
    "tidemill_worker_deaths_total",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the workspace").to_owned()
}

#[test]
fn the_page_says_what_the_table_says() {
    let page = std::fs::read_to_string(root().join("docs/metrics.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let told: Vec<String> = rows.map(str::to_owned).collect();
    let table = TABLE.iter().map(|metric| {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {} | {} | {} |", metric.name, metric.kind.name(), labels.join(", "), metric.help)
    });
    assert_eq!(told, table.collect::<Vec<_>>());
}

#[test]
fn the_sources_record_what_stands_in_the_table() {
    let mut recorded = BTreeSet::new();
    let mut pending = vec![root().join("libs"), root().join("services")];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.components().any(|part| part.as_os_str() == "src") && !path.ends_with("metrics/table.rs") {
                let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
                let names = text.split('"').skip(1).step_by(2).filter(|text| is_metric(text));
                recorded.extend(names.map(str::to_owned));
            }
        }
    }
    let table: BTreeSet<String> = TABLE.iter().map(|metric| metric.name.to_owned()).collect();
    let unknown: Vec<_> = recorded.difference(&table).collect();
    assert!(unknown.is_empty(), "recorded and not in libs/chassis/src/metrics/table.rs: {unknown:?}");
    let idle: Vec<_> = table.difference(&recorded).filter(|name| !name.starts_with("process_")).collect();
    assert!(idle.is_empty(), "in libs/chassis/src/metrics/table.rs and recorded nowhere: {idle:?}");
}

fn is_metric(text: &str) -> bool {
    ["tidemill_", "gen_ai_server_"].iter().any(|prefix| text.starts_with(prefix))
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_tidemill_tells_what_the_table_says() {
    let sandbox = Sandbox::start().await.unwrap();
    let Some(admin) = sandbox.endpoints().admin else {
        println!("skipped: metrics of a running Tidemill: here every service has an admin listener of its own");
        return;
    };
    let texts = tempfile::tempdir().unwrap();
    let mut spec = mini_pipeline("code", &corpus(texts.path()).unwrap());
    spec.feedback = None;
    run_to_end(&sandbox.clients, spec).await.unwrap();
    let body = serde_json::json!({"model": "code", "prompt": "pub fn ", "max_tokens": 8, "seed": 1, "stream": true});
    eventually("a streamed answer", async || {
        let answer = reqwest::Client::new().post(sandbox.http("/v1/completions")).json(&body).send().await.ok()?;
        if answer.status().is_success() { answer.text().await.ok() } else { None }
    })
    .await
    .unwrap();

    let get = async |path: &str| reqwest::get(format!("http://{admin}{path}")).await.unwrap();
    assert!(get("/livez").await.status().is_success());
    assert!(get("/readyz").await.status().is_success());
    let expected: BTreeSet<&str> = TABLE.iter().map(|metric| metric.name).filter(|m| !SELDOM.contains(m)).collect();
    let scrape = eventually("every metric", async || {
        let text = get("/metrics").await.text().await.unwrap();
        let told: BTreeSet<&str> = families(&text).into_keys().collect();
        expected.is_subset(&told).then_some(text.clone())
    })
    .await;
    let scrape = match scrape {
        Ok(scrape) => scrape,
        Err(_) => {
            let text = get("/metrics").await.text().await.unwrap();
            let told: BTreeSet<&str> = families(&text).into_keys().collect();
            panic!("not told: {:?}", expected.difference(&told).collect::<Vec<_>>());
        }
    };
    if let Some(path) = std::env::var_os("TIDEMILL_SCRAPE") {
        std::fs::write(path, &scrape).unwrap();
    }

    for (family, kind) in families(&scrape) {
        let metric = TABLE.iter().find(|metric| metric.name == family);
        let metric = metric.unwrap_or_else(|| panic!("{family} is told and not in the table"));
        assert_eq!(metric.kind.name(), kind, "{family}");
    }
    for (family, labels) in samples(&scrape) {
        let metric = TABLE.iter().find(|metric| metric.name == family).unwrap();
        let allowed: BTreeSet<&str> = metric.labels.iter().copied().collect();
        assert!(labels.is_subset(&allowed), "{family} has the labels {labels:?}, the table {allowed:?}");
    }
    sandbox.stop().await.unwrap();
}

/// Every family of a scrape, with its kind.
fn families(scrape: &str) -> BTreeMap<&str, &str> {
    scrape.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

/// Every family with the labels of its samples; `le` belongs to histograms.
fn samples(scrape: &str) -> BTreeMap<String, BTreeSet<&str>> {
    let known = families(scrape);
    let mut found: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for line in scrape.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let end = line.find(['{', ' ']).expect("a sample has a value");
        let (name, rest) = line.split_at(end);
        let family = match known.contains_key(name) {
            true => name,
            false => name.rsplit_once('_').expect("a histogram's sample has a suffix").0,
        };
        let labels = rest.strip_prefix('{').and_then(|rest| rest.rsplit_once('}')).map_or("", |(labels, _)| labels);
        let names = labels.split("\",").filter_map(|label| Some(label.split_once('=')?.0)).filter(|name| *name != "le");
        found.entry(family.to_owned()).or_default().extend(names);
    }
    found
}
