//! A loop small enough for tests: this project's own sources as the corpus, a model of some thousand weights.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tidemill_proto::inference::v1 as inference;
use tidemill_proto::ingestion::v1 as ingestion;
use tidemill_proto::pipeline::v1::{self as pipeline, PipelineRun, PipelineSpec, pipeline_spec};
use tidemill_proto::r#type::v1::{
    AdamW, Architecture, ConsentBasis, ObjectiveSpec, Recipe, RecordFormat, SamplingParameters, Schedule, SourceSpec,
    Split, State, SuiteSpec, Threshold, TokenizerSpec, TrainingSpec, architecture, recipe, suite_spec, threshold,
    tokenizer_spec,
};

use crate::Clients;

/// Copies the Rust sources of `libs/` into a folder as a corpus of text files.
pub fn corpus(into: &Path) -> Result<PathBuf> {
    let folder = into.join("corpus");
    std::fs::create_dir_all(&folder)?;
    let libs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../libs");
    let mut pending = vec![libs.clone()];
    while let Some(next) = pending.pop() {
        for entry in std::fs::read_dir(next)? {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let name = path.strip_prefix(&libs)?.to_string_lossy().replace('/', "_");
                std::fs::copy(&path, folder.join(name.replace(".rs", ".txt")))?;
            }
        }
    }
    Ok(folder)
}

/// A pipeline over a folder of texts that takes seconds.
pub fn mini_pipeline(id: &str, corpus: &Path) -> PipelineSpec {
    let quality = recipe::Quality {
        min_words: 5,
        min_alphabetic_ratio: 0.1,
        max_symbol_ratio: 1.0,
        max_mean_word_length: 40.0,
        min_mean_word_length: 1.0,
        max_duplicate_line_ratio: 0.9,
        ..Default::default()
    };
    let step = |step| recipe::Step { step: Some(step) };
    PipelineSpec {
        base: None,
        mixed_datasets: Vec::new(),
        id: id.to_owned(),
        source: Some(SourceSpec {
            uri: format!("file://{}", corpus.display()),
            include: vec!["*.txt".to_owned()],
            format: RecordFormat::Text.into(),
            license: "Apache-2.0".to_owned(),
            consent_basis: ConsentBasis::Own.into(),
            ..Default::default()
        }),
        recipe: Some(Recipe {
            steps: vec![
                step(recipe::step::Step::Normalize(recipe::Normalize::default())),
                step(recipe::step::Step::Quality(quality)),
                step(recipe::step::Step::Deduplicate(recipe::Deduplicate::default())),
                step(recipe::step::Step::Redact(recipe::Redact::default())),
            ],
            split: Some(Split { validation_ratio: 0.1, test_ratio: 0.15 }),
            tokenizer: Some(TokenizerSpec {
                tokenizer: Some(tokenizer_spec::Tokenizer::ByteLevelBpe(tokenizer_spec::ByteLevelBpe {
                    vocabulary_size: 512,
                })),
            }),
        }),
        training: Some(TrainingSpec {
            architecture: Some(Architecture {
                architecture: Some(architecture::Architecture::Llama(architecture::Llama {
                    hidden_size: 48,
                    intermediate_size: 96,
                    num_hidden_layers: 2,
                    num_attention_heads: 4,
                    num_key_value_heads: 2,
                    max_position_embeddings: 128,
                    tie_word_embeddings: true,
                    ..Default::default()
                })),
            }),
            steps: 60,
            batch_size: 4,
            accumulation: 2,
            sequence_length: 64,
            optimizer: Some(AdamW { learning_rate: 3e-3, ..Default::default() }),
            schedule: Some(Schedule { warmup_steps: 5, ..Default::default() }),
            seed: 7,
            checkpoint_every_steps: 10,
            validate_every_steps: 20,
            ..Default::default()
        }),
        evaluation: Some(SuiteSpec {
            baselines: vec![suite_spec::Baseline::Unigram.into()],
            prompts: vec!["//! ".to_owned()],
            sampling: Some(SamplingParameters { max_tokens: Some(12), seed: Some(1), ..Default::default() }),
            max_documents: 3,
            ..Default::default()
        }),
        objective: Some(ObjectiveSpec {
            task: "text-generation".to_owned(),
            thresholds: vec![Threshold { metric: "bits_per_byte".to_owned(), bound: Some(threshold::Bound::Max(6.0)) }],
            ..Default::default()
        }),
        serving: Some(pipeline_spec::Serving {
            model: id.to_owned(),
            alias: "champion".to_owned(),
            deployment: id.to_owned(),
        }),
        feedback: Some(pipeline_spec::FeedbackLoop { threshold: 3, steps: 20, learning_rate: 0.0, repeat: 2 }),
    }
}

/// Creates a pipeline, starts a run and waits for its end.
pub async fn run_to_end(clients: &Clients, spec: PipelineSpec) -> Result<PipelineRun> {
    wait_for_run(clients, &begin_run(clients, spec).await?).await
}

/// Creates a pipeline and starts a run; gives its name.
pub async fn begin_run(clients: &Clients, spec: PipelineSpec) -> Result<String> {
    let id = spec.id.clone();
    let pipeline = pipeline::Pipeline { spec: Some(spec), ..Default::default() };
    let mut client = clients.pipeline.clone();
    client
        .create_pipeline(pipeline::CreatePipelineRequest {
            pipeline_id: id.clone(),
            pipeline: Some(pipeline),
            request_id: uuid::Uuid::new_v4().to_string(),
        })
        .await?;
    let run = client
        .create_pipeline_run(pipeline::CreatePipelineRunRequest {
            parent: format!("pipelines/{id}"),
            pipeline_run: Some(PipelineRun::default()),
            ..Default::default()
        })
        .await?;
    Ok(run.into_inner().name)
}

/// Waits until a run has ended; fails unless it succeeded.
pub async fn wait_for_run(clients: &Clients, name: &str) -> Result<PipelineRun> {
    let run = crate::eventually(&format!("the end of {name}"), async || {
        let request = pipeline::GetPipelineRunRequest { name: name.to_owned() };
        let run = clients.pipeline.clone().get_pipeline_run(request).await.ok()?.into_inner();
        matches!(run.state(), State::Succeeded | State::Failed | State::Cancelled).then_some(run)
    })
    .await?;
    if run.state() != State::Succeeded {
        bail!("{name} ended as {:?}: {:?}", run.state(), run.error.map(|error| error.message));
    }
    Ok(run)
}

/// Asks the model `count` times and posts a correction for each answer, safely repeatable: ids derive from the number.
pub async fn post_feedback(clients: &Clients, deployment: &str, count: usize) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for number in 0..count {
        let answer_id = format!("answer-{number}");
        crate::eventually("an answer", async || {
            let request = inference::GenerateRequest {
                model: deployment.to_owned(),
                input: Some(inference::generate_request::Input::Prompt(format!("pub fn number_{number}("))),
                sampling: Some(SamplingParameters {
                    max_tokens: Some(8),
                    seed: Some(number as u64),
                    ..Default::default()
                }),
                store: true,
                answer_id: answer_id.clone(),
            };
            match clients.inference.clone().generate(request).await {
                Ok(_) => Some(()),
                Err(status) => (status.code() == tonic::Code::AlreadyExists).then_some(()),
            }
        })
        .await?;
        let name = crate::eventually("stored feedback", async || {
            let feedback = ingestion::Feedback {
                answer: format!("answers/{answer_id}"),
                prompt: format!("pub fn number_{number}("),
                completion: "?".to_owned(),
                correction: format!(") -> u64 {{\n    {number}\n}}\n"),
                model: format!("models/{deployment}"),
                consent: true,
                ..Default::default()
            };
            let request = ingestion::CreateFeedbackRequest {
                feedback_id: format!("feedback-{number}"),
                feedback: Some(feedback),
                request_id: format!("00000000-0000-4000-8000-{number:012}"),
            };
            clients.ingestion.clone().create_feedback(request).await.ok().map(|made| made.into_inner().name)
        })
        .await
        .context("feedback")?;
        names.push(name);
    }
    Ok(names)
}
