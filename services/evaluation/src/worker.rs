//! The worker: scores the documents of a split, continues prompts, waits for the compressors, and leaves one result.

mod rows;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tidemill_artifacts::{Artifacts, Digest};
use tidemill_chassis::Fault;
use tidemill_dataset::Split;
use tidemill_models::Config;
use tidemill_platform::models;
use tidemill_platform::worker::{self, Ended, Report, WorkerArguments};
use tidemill_proto::r#type::v1::SuiteSpec;
use tidemill_text::{ChatFormat, Tokenizer};

use crate::assignment::Assignment;
use crate::baseline::{self, Compressor, Figure, Xz};
use crate::documents;
use crate::error::{Error, Result};
use crate::masked::Windows;
use crate::outcome::{self, Outcome, Sample, rounded};
use crate::sample::{self, Generation};
use crate::score::{self, Score};
use crate::sequences;
use crate::subject::{self, Subject};

/// Between two reports.
const REPORT_EVERY: Duration = Duration::from_millis(200);

/// A worker process from its beginning to its exit code.
pub fn worker_main() -> i32 {
    worker::enter("evaluation", async |arguments, artifacts, stop| {
        run(&arguments, &artifacts, &|| stop.requested()).await
    })
}

/// Measures what the arguments ask for. A worker that is stopped leaves nothing: the next one begins anew.
async fn run(
    arguments: &WorkerArguments,
    artifacts: &Artifacts,
    stop: &dyn Fn() -> bool,
) -> std::result::Result<Ended, Fault> {
    let result = worker::result_reference(&arguments.uid);
    if artifacts.resolve(&result).await.map_err(Error::from)?.is_some() {
        return Ok(Ended::Done);
    }
    let assignment = Assignment::decode(&arguments.spec)?;
    let _undisturbed = tidemill_torch::process::undisturbed();
    tidemill_torch::process::set_threads(threads(assignment.threads));
    let evaluation = &assignment.evaluation;
    let model_digest: Digest = evaluation.model_digest.parse().map_err(Error::from)?;
    report("loading the model", &Report::default());
    let folder = arguments.work_dir.join("model");
    models::fetch(artifacts, &model_digest, &folder).await.map_err(Error::from)?;
    let device = tidemill_torch::device::select();
    tracing::info!(device = ?device.device, reason = device.reason, threads = tidemill_torch::process::threads(), "measuring");
    for warning in &device.warnings {
        tracing::warn!(warning, "the GPU is used less well than it could be");
    }
    let failed = |source| Error::Model { digest: model_digest.to_string(), source };
    let model = tidemill_models::load(&folder, device.device).map_err(failed)?;
    let path = folder.join("tokenizer.json");
    let json = std::fs::read(&path).map_err(|source| Error::File { path, source })?;
    let what = format!("model {model_digest}");
    let tokenizer = Tokenizer::from_bytes(&json).map_err(|source| Error::Text { what, source })?;
    subject::check_vocabulary(&model, &tokenizer, &evaluation.model_digest)?;
    let dataset: Digest = evaluation.dataset_digest.parse().map_err(Error::from)?;
    let rows = documents::are_rows(artifacts, &dataset).await?;
    let chat = if rows { subject::chat_format(&folder, &evaluation.model_digest)? } else { ChatFormat::default() };
    let subject = Subject { evaluation, model: &model, tokenizer: &tokenizer, rows, chat: &chat, folder: &folder };
    let Some(outcome) = measure(artifacts, &subject, stop).await? else { return Ok(Ended::Stopped) };
    let bytes = serde_json::to_vec(&outcome).map_err(Fault::internal)?;
    let (digest, _) = artifacts.put(bytes).await.map_err(Error::from)?;
    artifacts.claim(&result, &digest).await.map_err(Error::from)?;
    tracing::info!(result = %digest, metrics = ?outcome.metrics, "measured");
    Ok(Ended::Done)
}

async fn measure(artifacts: &Artifacts, subject: &Subject<'_>, stop: &dyn Fn() -> bool) -> Result<Option<Outcome>> {
    let suite = outcome::normal(subject.evaluation.suite.as_ref().unwrap_or(&SuiteSpec::default()));
    let dataset: Digest = subject.evaluation.dataset_digest.parse()?;
    let split: Split = suite.split.parse().map_err(|source| Error::Dataset { digest: dataset.to_string(), source })?;
    let mut held_out = documents::read(artifacts, &dataset, split).await?;
    if suite.max_documents > 0 {
        held_out.truncate(suite.max_documents as usize);
    }
    let text = documents::joined(&held_out);
    if text.is_empty() {
        return Err(Error::EmptySplit { split: suite.split, digest: dataset.to_string() });
    }
    subject.check_family(suite.prompts.len())?;
    if subject.rows {
        return rows::measure(artifacts, subject, &suite, &held_out, stop).await;
    }
    let texts: Vec<String> = held_out.into_iter().map(|document| document.text).collect();
    let measured_bytes = text.len() as u64;
    let mut baselines = Baselines::begin(artifacts, &suite, &dataset, split, text).await?;

    let scored = match subject.model.config() {
        Config::Bert(_) => score_hidden(subject, &texts, measured_bytes, stop).await?,
        _ => score_texts(subject, &texts, measured_bytes, stop).await?.map(|score| {
            BTreeMap::from([
                ("bits_per_byte".to_owned(), rounded(score.bits_per_byte(measured_bytes as f64))),
                ("perplexity".to_owned(), rounded(score.perplexity())),
                ("tokens_per_byte".to_owned(), rounded(score.tokens as f64 / measured_bytes as f64)),
            ])
        }),
    };
    let Some(mut metrics) = scored else { return Ok(None) };
    let Some(samples) = continue_prompts(subject, &suite, stop).await? else { return Ok(None) };
    while !baselines.are_done() {
        report("waiting for xz", &Report::default());
        tokio::time::sleep(REPORT_EVERY).await;
        if stop() {
            return Ok(None);
        }
    }
    for (compressor, figure) in baselines.finish(artifacts, &suite, &dataset, split).await? {
        metrics.insert(baseline::metric(compressor).to_owned(), figure.bits_per_byte);
    }
    Ok(Some(outcome_of(subject, &suite, measured_bytes, metrics, samples)))
}

fn outcome_of(
    subject: &Subject<'_>,
    suite: &SuiteSpec,
    measured_bytes: u64,
    metrics: BTreeMap<String, f64>,
    samples: Vec<Sample>,
) -> Outcome {
    Outcome {
        dataset_digest: subject.evaluation.dataset_digest.clone(),
        measured_bytes,
        metrics,
        model_digest: subject.evaluation.model_digest.clone(),
        samples,
        suite_digest: outcome::suite_digest(suite).to_string(),
    }
}

/// How far it is, and how fast.
fn progress(done: u64, total: u64, begin: Instant) -> Report {
    let rate = done as f64 / begin.elapsed().as_secs_f64().max(1e-9);
    Report {
        done: done as i64,
        total: total as i64,
        unit: "tokens".to_owned(),
        remaining_seconds: Some((total - done) as f64 / rate),
        metrics: [("tokens_per_second".to_owned(), rate)].into(),
        ..Report::default()
    }
}

async fn score_texts(
    subject: &Subject<'_>,
    texts: &[String],
    bytes: u64,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Score>> {
    let digest = subject.evaluation.model_digest.as_str();
    let end = subject.tokenizer.end_of_text().ok_or_else(|| Error::NoEndOfText(digest.to_owned()))?;
    let context = subject.model.config().context_length() as usize;
    let mut windows = Vec::new();
    let mut tokens = 0;
    for text in texts {
        let what = format!("a document of dataset {}", subject.evaluation.dataset_digest);
        let ids = subject.tokenizer.encode(text).map_err(|source| Error::Text { what, source })?;
        tokens += ids.len() as u64;
        windows.extend(score::windows(&ids, end, context));
        tokio::task::yield_now().await;
        if stop() {
            return Ok(None);
        }
    }
    let (begin, mut reported) = (Instant::now(), None);
    let between = |score: &Score| {
        if score.tokens == tokens || reported.is_none_or(|last: Instant| last.elapsed() >= REPORT_EVERY) {
            reported = Some(Instant::now());
            // The text's share that the scored tokens stand for.
            let share = score.tokens as f64 / tokens as f64;
            let mut figures = progress(score.tokens, tokens, begin);
            figures.metrics.insert("bits_per_byte".to_owned(), score.bits_per_byte(bytes as f64 * share));
            report("measuring", &figures);
        }
        !stop()
    };
    let scored = score::score(subject.model, digest, &windows, between).await?;
    tracing::info!(tokens, documents = texts.len(), seconds = begin.elapsed().as_secs_f64(), "documents scored");
    Ok(scored)
}

/// Figures of an encoder: of tokens that are hidden.
async fn score_hidden(
    subject: &Subject<'_>,
    texts: &[String],
    bytes: u64,
    stop: &dyn Fn() -> bool,
) -> Result<Option<BTreeMap<String, f64>>> {
    let windows = Windows::of(subject, texts)?;
    let sequences = windows.sequences();
    let tokens: u64 = sequences.iter().map(|sequence| sequence.tokens() as u64).sum();
    if tokens == 0 {
        return Err(Error::NothingHidden(subject.evaluation.dataset_digest.clone()));
    }
    let (begin, mut reported) = (Instant::now(), None);
    let between = |done: u64| {
        if done == tokens || reported.is_none_or(|last: Instant| last.elapsed() >= REPORT_EVERY) {
            reported = Some(Instant::now());
            report("measuring", &progress(done, tokens, begin));
        }
        !stop()
    };
    let losses = sequences::score(subject.model, subject.model_digest(), &sequences, between).await?;
    Ok(losses.map(|losses| windows.metrics(&losses, bytes)))
}

async fn continue_prompts(
    subject: &Subject<'_>,
    suite: &SuiteSpec,
    stop: &dyn Fn() -> bool,
) -> Result<Option<Vec<Sample>>> {
    let parameters = suite.sampling.clone().unwrap_or_default();
    let generation = Generation::of(&parameters, subject.folder);
    let mut samples = Vec::new();
    for (index, prompt) in suite.prompts.iter().enumerate() {
        let total = suite.prompts.len() as i64;
        report("sampling", &Report { done: index as i64, total, unit: "prompts".to_owned(), ..Report::default() });
        let prompt = (index, prompt.as_str(), subject.prompt(index, prompt)?);
        let sample = sample::complete(subject, &generation, prompt, || !stop()).await?;
        match sample {
            Some(sample) => samples.push(sample),
            None => return Ok(None),
        }
    }
    Ok(Some(samples))
}

fn report(phase: &str, figures: &Report) {
    worker::report(&Report { phase: phase.to_owned(), ..figures.clone() });
}

/// The suite's compressors: found, computed, or being computed by programs.
struct Baselines {
    known: Vec<(Compressor, Figure)>,
    fresh: Vec<(Compressor, Figure)>,
    running: Option<Xz>,
}

impl Baselines {
    async fn begin(
        artifacts: &Artifacts,
        suite: &SuiteSpec,
        dataset: &Digest,
        split: Split,
        text: Vec<u8>,
    ) -> Result<Self> {
        let mut baselines = Self { known: Vec::new(), fresh: Vec::new(), running: None };
        let mut missing = Vec::new();
        for baseline in suite.baselines() {
            let Some(compressor) = Compressor::of(baseline) else {
                return Err(Error::Baseline {
                    digest: dataset.to_string(),
                    held: "text",
                    baseline: baseline.as_str_name(),
                });
            };
            match baseline::find(artifacts, compressor, dataset, split, suite.max_documents).await? {
                Some(figure) => baselines.known.push((compressor, figure)),
                None => missing.push(compressor),
            }
        }
        if missing.is_empty() {
            return Ok(baselines);
        }
        let train = documents::joined(&documents::read(artifacts, dataset, Split::Train).await?);
        if missing.contains(&Compressor::Unigram) {
            baselines.fresh.push((Compressor::Unigram, baseline::unigram(&train, &text)));
        }
        if missing.contains(&Compressor::Xz) {
            baselines.running = Some(Xz::start(train.into(), text.into())?);
        }
        Ok(baselines)
    }

    fn are_done(&self) -> bool {
        self.running.as_ref().is_none_or(Xz::is_done)
    }

    /// Waits for what runs, keeps what is new, and returns all.
    async fn finish(
        &mut self,
        artifacts: &Artifacts,
        suite: &SuiteSpec,
        dataset: &Digest,
        split: Split,
    ) -> Result<Vec<(Compressor, Figure)>> {
        if let Some(xz) = self.running.take() {
            self.fresh.push((Compressor::Xz, xz.figure()?));
        }
        for (compressor, figure) in &self.fresh {
            baseline::keep(artifacts, *compressor, dataset, split, suite.max_documents, *figure).await?;
        }
        self.known.append(&mut self.fresh);
        Ok(std::mem::take(&mut self.known))
    }
}

/// Threads for libtorch. All cores means those that this process may use: libtorch counts those of the machine, and a container
/// that has fewer would crawl.
fn threads(asked: usize) -> i32 {
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if asked > 0 { asked } else { all().min(tidemill_torch::process::threads().unsigned_abs() as usize) };
    i32::try_from(threads).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests;
