//! How fast one replica collects a topic, beside a client that only counts.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use tidemill_proto::r#type::v1::State;

use crate::Production;
use crate::processes::{Installation, Stores, kafka_pipe, printed};
use crate::recipe::Recipe;

const TOPIC: &str = "bench";

pub(crate) async fn run(brokers: &str, messages: u64) -> anyhow::Result<()> {
    let recipe = Recipe { messages, partitions: 6, malformed: false };
    let topic = format!("{TOPIC}-{}", uuid::Uuid::now_v7().simple());
    let mut production = Production::begin(brokers, &topic, recipe)?;
    production.advance(messages)?;
    eprintln!("{}", production.finish()?);

    let mut rates = Vec::new();
    for round in 1..=3 {
        let counted = printed(kafka_pipe(&["count", brokers, &topic], std::process::Stdio::null())?)?;
        let seconds: f64 =
            counted.split(' ').nth(2).and_then(|text| text.parse().ok()).context("kafka_pipe prints seconds")?;
        let (collected, whole) = collect(brokers, &topic).await?;
        let rate = |seconds: f64| messages as f64 / seconds;
        eprintln!(
            "round {round}: counting {:.0}/s, collecting {:.0}/s, to a finished version {:.0}/s",
            rate(seconds),
            rate(collected.as_secs_f64()),
            rate(whole.as_secs_f64())
        );
        rates.push([rate(seconds), rate(collected.as_secs_f64()), rate(whole.as_secs_f64())]);
    }
    let median = |column: usize| {
        let mut values: Vec<f64> = rates.iter().map(|row| row[column]).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let peer = median(0);
    let row = |name: &str, ours: f64| {
        serde_json::json!({
            "name": name, "ours": ours.round(), "peer": peer.round(), "ratio": ours / peer, "unit": "records/s", "higher_is_better": true
        })
    };
    let rows =
        [row("collect a topic of 1 KiB records", median(1)), row("topic to finished dataset version", median(2))];
    println!("{}", serde_json::to_string_pretty(&rows)?);
    Ok(())
}

/// From the creation of the source: until everything is in segments, and until the version is finished.
async fn collect(brokers: &str, topic: &str) -> anyhow::Result<(Duration, Duration)> {
    let folder = tempfile::tempdir()?;
    let installation = Installation::start(folder.path(), 1, &Stores::default())?;
    installation.ready().await?;
    let begun = Instant::now();
    let (source, dataset) = installation.source(&format!("kafka://{brokers}/{topic}")).await?;
    let version = installation.version(&source, &dataset).await?;
    let mut collected = None;
    loop {
        let version = installation.get(&version.name).await?;
        let phase = version.progress.map(|progress| progress.phase).unwrap_or_default();
        if collected.is_none() && (phase == "putting together" || version.state == State::Succeeded as i32) {
            collected = Some(begun.elapsed());
        }
        match State::try_from(version.state) {
            Ok(State::Succeeded) => return Ok((collected.unwrap_or_default(), begun.elapsed())),
            Ok(State::Failed) => anyhow::bail!("the version failed: {:?}", version.error),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
