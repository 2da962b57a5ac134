//! Jobs that learn from rewards: rows in, a model out whose answers follow the rule.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tidemill_dataset::{Document, Example, RecordId, RowType, RowsAnnotations, ShardWriter, Split};
use tidemill_proto::training::v1::TrainingJob;
use tidemill_proto::r#type::v1::group_relative_policy_optimization::{ExactMatch, RegularExpression, Reward, reward};
use tidemill_proto::r#type::v1::training_spec::Method;
use tidemill_proto::r#type::v1::{GroupRelativePolicyOptimization, Lora};

use super::*;
use crate::history::MetricPoint;

/// A model that has read the world's texts, and prompts for it.
async fn world() -> (World, Digest, Digest) {
    let world = World::new().await;
    world.run("base", TrainingSpec { steps: 60, ..spec() }).await.unwrap();
    let words = ["we ", "the ", "people ", "of ", "a ", "more "];
    let row = |index: usize| {
        let prompt: String = (0..3).map(|at| words[(index * 5 + at * at + at) % words.len()]).collect();
        json!({"prompt": prompt.trim_end(), "answer": "union"})
    };
    let rows = put_rows(&world, "prompts", RowType::Prompt, &(0..24).map(row).collect::<Vec<_>>()).await;
    let base = world.result("base").await;
    (world, base, rows)
}

async fn put_rows(world: &World, name: &str, row_type: RowType, rows: &[Value]) -> Digest {
    let folder = world.folder.path().join(name);
    for (split, rows) in Split::ALL.into_iter().zip([rows, &rows[..rows.len().min(6)], &[]]) {
        let mut shard = ShardWriter::<Document>::named(folder.join(split.as_str()), "text").unwrap();
        for row in rows {
            let text = Example::from_json(row).unwrap().to_json();
            shard.push(Document { id: RecordId::of(text.as_bytes()), text }).unwrap();
        }
        shard.finish().unwrap();
    }
    let annotations = RowsAnnotations {
        row_type,
        recipe: "{}".to_owned(),
        splits: BTreeMap::new(),
        dropped_counts: BTreeMap::new(),
        redacted_count: 0,
    };
    world.artifacts.put_directory(&folder, "prepared-dataset", Vec::new(), annotations.to_map()).await.unwrap()
}

/// Rewards answers that name the union.
fn rewarded(rule: reward::Rule) -> TrainingSpec {
    let method = GroupRelativePolicyOptimization {
        max_completion_length: 4,
        beta: 0.01,
        rewards: vec![Reward { weight: 2.0, rule: Some(rule) }],
        ..GroupRelativePolicyOptimization::default()
    };
    TrainingSpec { architecture: None, method: Some(Method::GroupRelativePolicyOptimization(method)), ..spec() }
}

fn union() -> reward::Rule {
    reward::Rule::RegularExpression(RegularExpression { pattern: "union".to_owned() })
}

fn job(world: &World, base: Digest, rows: Digest, spec: TrainingSpec) -> TrainingJob {
    TrainingJob { dataset_digest: rows.to_string(), base_model_digest: base.to_string(), ..world.job(spec) }
}

async fn points(world: &World, uid: &str) -> Vec<MetricPoint> {
    let digest = world.artifacts.resolve(&history_reference(uid)).await.unwrap().unwrap();
    serde_json::from_slice(&world.artifacts.get(&digest).await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_job_learns_to_follow_a_rule_and_ends_with_the_same_bytes_however_often_it_is_stopped() {
    let (world, base, rows) = world().await;
    let job = job(&world, base, rows, rewarded(union()));
    let arguments = |uid: &str| world.arguments_of(uid, job.clone());
    assert_eq!(run(&arguments("undisturbed"), &world.artifacts, &|| false).await.unwrap(), Ended::Done);
    let points = points(&world, "undisturbed").await;
    let mean =
        |points: &[MetricPoint]| points.iter().map(|point| point.metrics["reward"]).sum::<f64>() / points.len() as f64;
    let (first, last) = (mean(&points[..3]), mean(&points[points.len() - 3..]));
    println!("mean reward: {first} at first, {last} at last, of 2");
    assert!(last > first + 0.5, "{first} and then {last}: {points:?}");
    let validated = points.last().unwrap();
    assert_eq!(validated.metrics["validation_loss"], -validated.metrics["validation_reward"]);
    let measured = validated.metrics.keys().filter(|name| name.starts_with("validation_"));
    let mut known = crate::study::objectives(job.spec.as_ref().and_then(|spec| spec.method.as_ref()));
    known.sort();
    assert_eq!(measured.cloned().collect::<Vec<_>>(), known, "what a study may compare is what is measured");
    let manifest = world.artifacts.manifest(&world.result("undisturbed").await).await.unwrap();
    assert_eq!(manifest.parents, [rows, base]);

    while run(&arguments("stopped"), &world.artifacts, &after(7)).await.unwrap() == Ended::Stopped {}
    assert_eq!(world.result("stopped").await, world.result("undisturbed").await);
}

#[tokio::test]
async fn an_adapter_is_pulled_to_the_model_without_it_and_resumes_exactly_too() {
    let (world, base, rows) = world().await;
    let lora = Lora { r: 8, alpha: 16.0, ..Lora::default() };
    let job = job(&world, base, rows, TrainingSpec { lora: Some(lora), steps: 12, ..rewarded(union()) });
    let arguments = |uid: &str| world.arguments_of(uid, job.clone());
    assert_eq!(run(&arguments("undisturbed"), &world.artifacts, &|| false).await.unwrap(), Ended::Done);
    let divergence: Vec<f64> = points(&world, "undisturbed").await.iter().map(|point| point.metrics["kl"]).collect();
    assert!(divergence[0].abs() < 1e-6 && divergence[11] > 1e-3, "{divergence:?}");
    while run(&arguments("stopped"), &world.artifacts, &after(5)).await.unwrap() == Ended::Stopped {}
    assert_eq!(world.result("stopped").await, world.result("undisturbed").await);
}

#[tokio::test]
async fn rows_that_cannot_be_answered_or_judged_are_named() {
    let (world, base, _) = world().await;
    let refused = async |name: &str, row_type, row: Value, spec| {
        let rows = put_rows(&world, name, row_type, &[row]).await;
        let job = job(&world, base, rows, spec);
        let fault = run(&world.arguments_of(name, job), &world.artifacts, &|| false).await.unwrap_err();
        assert_eq!(fault.code, Code::InvalidArgument, "{fault}");
        fault.message
    };
    let exact = || rewarded(reward::Rule::ExactMatch(ExactMatch {}));
    let text = refused("bare", RowType::Prompt, json!({"prompt": "we the people"}), exact()).await;
    assert!(text.contains("row sha256:") && text.contains("exact_match compares with one"), "{text}");
    let long = json!({"prompt": "of a more perfect ".repeat(9), "completion": "union"});
    let text = refused("long", RowType::PromptCompletion, long, exact()).await;
    assert!(text.contains("leaves no room for an answer of max_completion_length = 4"), "{text}");
    let judged = json!({"prompt": "we", "completion": "the", "label": true});
    let text = refused("judged", RowType::Judged, judged, exact()).await;
    assert!(text.contains("learns prompts, prompts with completions, or conversations"), "{text}");
}
