//! Measuring on rows: they have answers to predict, and no bytes to code. What is measured beside is the model that training started from.

use std::time::Instant;

use tidemill_artifacts::{Artifacts, Digest};
use tidemill_dataset::Document;
use tidemill_models::Model;
use tidemill_platform::models::{self, BASE_MODEL_DIGEST};
use tidemill_proto::r#type::v1::SuiteSpec;
use tidemill_proto::r#type::v1::suite_spec::Baseline;

use super::{REPORT_EVERY, continue_prompts, outcome_of, progress, report};
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::rows::Rows;
use crate::sequences::Loss;
use crate::subject::{self, Subject};

/// What the base model's figures are called is this and the figure's name.
const OF_BASE: &str = "base_";

/// Measures the model on the answers of rows.
pub(super) async fn measure(
    artifacts: &Artifacts,
    subject: &Subject<'_>,
    suite: &SuiteSpec,
    held_out: &[Document],
    stop: &dyn Fn() -> bool,
) -> Result<Option<Outcome>> {
    let dataset = &subject.evaluation.dataset_digest;
    if let Some(other) = suite.baselines().find(|baseline| *baseline != Baseline::BaseModel) {
        return Err(Error::Baseline { digest: dataset.clone(), held: "rows", baseline: other.as_str_name() });
    }
    // Asked for first: it may not be there.
    let base = if suite.baselines.is_empty() { None } else { Some(base_of(artifacts, subject.model_digest()).await?) };
    let rows = match subject.sources() {
        Some(sources) => Rows::read_sources(held_out, &sources)?,
        None => Rows::read(held_out, &subject.supervisor(), suite.max_completion_length.max(0) as usize)?,
    };
    if rows.tokens() == 0 {
        return Err(Error::NoAnswers { split: suite.split.clone(), digest: dataset.clone() });
    }
    let Some(own) = score("measuring", &rows, subject.model, subject.model_digest(), stop).await? else {
        return Ok(None);
    };
    let mut metrics = rows.metrics(&own);
    if let Some(base) = base {
        let Some(base) = score_base(artifacts, subject, &rows, base, stop).await? else { return Ok(None) };
        metrics.extend(rows.metrics(&base).into_iter().map(|(name, figure)| (format!("{OF_BASE}{name}"), figure)));
        metrics.extend(rows.rewards(&own, &base));
    }
    let Some(samples) = continue_prompts(subject, suite, stop).await? else { return Ok(None) };
    let measured_bytes = held_out.iter().map(|document| document.text.len() as u64).sum();
    Ok(Some(outcome_of(subject, suite, measured_bytes, metrics, samples)))
}

async fn score(
    phase: &'static str,
    rows: &Rows,
    model: &Model,
    digest: &str,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Vec<Loss>>> {
    let (tokens, begin, mut reported) = (rows.tokens(), Instant::now(), None);
    let between = |done: u64| {
        if done == tokens || reported.is_none_or(|last: Instant| last.elapsed() >= REPORT_EVERY) {
            reported = Some(Instant::now());
            report(phase, &progress(done, tokens, begin));
        }
        !stop()
    };
    let scored = rows.score(model, digest, between).await?;
    tracing::info!(model = digest, tokens, seconds = begin.elapsed().as_secs_f64(), "rows scored");
    Ok(scored)
}

/// Scores the base model on the very same sequences: it is measured in the way of the model that came of it.
async fn score_base(
    artifacts: &Artifacts,
    subject: &Subject<'_>,
    rows: &Rows,
    base: Digest,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Vec<Loss>>> {
    let folder = subject.folder.with_file_name("base-model");
    models::fetch(artifacts, &base, &folder).await?;
    let digest = base.to_string();
    let model = tidemill_models::load(&folder, subject.model.device());
    let model = model.map_err(|source| Error::Model { digest: digest.clone(), source })?;
    subject::check_vocabulary(&model, subject.tokenizer, &digest)?;
    score("measuring the base model", rows, &model, &digest, stop).await
}

/// The model that another one was trained from: an adapter names it, others have it among their parents.
async fn base_of(artifacts: &Artifacts, digest: &str) -> Result<Digest> {
    let manifest = artifacts.manifest(&digest.parse()?).await?;
    if let Some(base) = manifest.annotations.get(BASE_MODEL_DIGEST) {
        return Ok(base.parse()?);
    }
    for parent in &manifest.parents {
        match artifacts.manifest(parent).await {
            Ok(parent_manifest) if parent_manifest.kind == "model" => return Ok(*parent),
            Ok(_) | Err(tidemill_artifacts::Error::NotFound(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::NoBase(digest.to_owned()))
}
