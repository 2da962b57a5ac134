//! What a pipeline's document must be. Pure; finds every mistake at once, each with its field, before any work begins.

mod measure;
mod recipe;
mod source;
#[cfg(test)]
mod tests;
mod training;
mod wrong;

use tidemill_proto::pipeline::v1::PipelineSpec;
use tidemill_proto::pipeline::v1::pipeline_spec::base::Base as Which;
use tidemill_proto::pipeline::v1::pipeline_spec::{Base, FeedbackLoop, Serving};
use tidemill_proto::r#type::v1::suite_spec::Baseline;
use tidemill_proto::r#type::v1::{MixedDataset, RecordFormat};

use wrong::Wrong;

/// Longest id of a pipeline: ids of its jobs are made from it, and are at most 63 long.
const LONGEST_ID: usize = 36;
/// Most feedback that may wait for a turn.
const MOST_FEEDBACK: i32 = 10_000;
/// Most repetitions of feedback among the training documents.
const MOST_REPEATS: i32 = 1000;

/// Wrong fields of a document: (path, description), paths as `spec.training.steps`.
pub(crate) fn mistakes(spec: &PipelineSpec) -> Vec<(String, String)> {
    let mut wrong = Wrong::default();
    if wrong.id("id", &spec.id) {
        let length = spec.id.len();
        wrong.unless(length <= LONGEST_ID, "id", || {
            format!("it has {length} characters; use at most {LONGEST_ID}, because ids of its jobs begin with it")
        });
    }
    if let Some(source) = wrong.required("source", spec.source.as_ref()) {
        source::check(source, &mut wrong);
    }
    let rows = spec.source.as_ref().is_some_and(|source| source.format() == RecordFormat::Rows);
    if let Some(recipe) = wrong.required("recipe", spec.recipe.as_ref()) {
        recipe::check(recipe, rows, &mut wrong);
    }
    if let Some(training) = wrong.required("training", spec.training.as_ref()) {
        training::check(training, spec.base.is_some(), rows, &mut wrong);
    }
    if let Some(suite) = wrong.required("evaluation", spec.evaluation.as_ref()) {
        let split = spec.recipe.as_ref().and_then(|recipe| recipe.split.as_ref());
        measure::check_suite(suite, split, &mut wrong);
        for (index, baseline) in suite.baselines().enumerate() {
            let field = format!("evaluation.baselines[{index}]");
            wrong.unless(rows == (baseline == Baseline::BaseModel), &field, || {
                "compressors are for text, and the base model is for rows: leave it out".to_owned()
            });
        }
    }
    if let Some(objective) = wrong.required("objective", spec.objective.as_ref()) {
        measure::check_objective(objective, spec.evaluation.as_ref(), &mut wrong);
    }
    if let Some(serving) = wrong.required("serving", spec.serving.as_ref()) {
        check_serving(serving, &mut wrong);
    }
    if let Some(feedback) = &spec.feedback {
        wrong.unless(!rows, "feedback", || {
            "feedback becomes text, and the source's records are rows: leave it out".to_owned()
        });
        check_feedback(feedback, &mut wrong);
    }
    if let Some(base) = &spec.base {
        check_base(base, &mut wrong);
    }
    check_mixed(&spec.mixed_datasets, &mut wrong);
    wrong.into_fields()
}

fn check_base(base: &Base, wrong: &mut Wrong) {
    match &base.base {
        None => wrong.add("base", "say which: import or model"),
        Some(Which::Model(id)) => _ = wrong.id("base.model", id),
        Some(Which::Import(import)) => {
            let is_file = import.uri.strip_prefix("file://").is_some_and(|path| path.starts_with('/'));
            wrong.unless(is_file, "base.import.uri", || {
                format!("{:?} is not of the form file:///folder or file:///model.gguf", import.uri)
            });
        }
    }
}

/// Whether they exist, and fit, training says: here only what can be seen without looking.
fn check_mixed(mixed: &[MixedDataset], wrong: &mut Wrong) {
    for (index, MixedDataset { dataset_digest, weight }) in mixed.iter().enumerate() {
        let hex = dataset_digest.strip_prefix("sha256:").unwrap_or_default();
        let is_digest = hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        wrong.unless(is_digest, &format!("mixed_datasets[{index}].dataset_digest"), || {
            format!("{dataset_digest:?} is not of the form sha256:<64 lowercase hex digits>: name a prepared dataset")
        });
        wrong.unless(weight.is_finite() && *weight > 0.0, &format!("mixed_datasets[{index}].weight"), || {
            format!("{weight} is not a share; use a positive number")
        });
    }
}

fn check_serving(serving: &Serving, wrong: &mut Wrong) {
    wrong.id("serving.model", &serving.model);
    for (field, id) in [("serving.alias", &serving.alias), ("serving.deployment", &serving.deployment)] {
        if !id.is_empty() {
            wrong.id(field, id);
        }
    }
}

fn check_feedback(feedback: &FeedbackLoop, wrong: &mut Wrong) {
    let FeedbackLoop { threshold, steps, learning_rate, repeat } = *feedback;
    wrong.unless((1..=MOST_FEEDBACK).contains(&threshold), "feedback.threshold", || {
        format!("{threshold} should be 1 to {MOST_FEEDBACK}")
    });
    wrong.unless(steps >= 1, "feedback.steps", || format!("{steps} should be at least 1"));
    wrong.unless(learning_rate.is_finite() && learning_rate >= 0.0, "feedback.learning_rate", || {
        format!("{learning_rate} should be positive, or 0 for a third of the first")
    });
    wrong.unless((0..=MOST_REPEATS).contains(&repeat), "feedback.repeat", || {
        format!("{repeat} should be 0 (once) to {MOST_REPEATS}")
    });
}
