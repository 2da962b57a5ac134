//! Rows of a prepared dataset in the ids of the model that learns them.

use std::path::Path;

use serde_json::Value;
use tidemill_artifacts::{Artifacts, Digest, Manifest};
use tidemill_dataset::{Document, RowType, Split};
use tidemill_models::{Config, IGNORED};
use tidemill_proto::training::v1::TrainingJob;
use tidemill_text::{ChatFormat, Lesson, Question, Sources, Supervised, Supervisor, Tokenizer};

use crate::error::{Error, Result};
use crate::learning::{Grouped, Method, Prompt, Reward, Row, Sequence, method_of, rewards_of};
use crate::validate;

/// How rows become tokens.
pub(super) struct Files {
    pub(super) tokenizer: Tokenizer,
    pub(super) chat: ChatFormat,
    /// Tokens that end an answer of the model.
    pub(super) ends: Vec<u32>,
}

/// Those of a base model's folder.
pub(super) fn files(folder: &Path) -> Result<Files> {
    let json = file(folder, "tokenizer.json")?.ok_or_else(|| Error::Unfit {
        field: "base_model_digest",
        reason: "the model has no tokenizer.json; import it with its tokenizer".to_owned(),
    })?;
    let unfit = |error: tidemill_text::Error| Error::Unfit { field: "base_model_digest", reason: error.to_string() };
    let tokenizer = Tokenizer::from_bytes(&json).map_err(unfit)?;
    let (template, config) = (file(folder, "chat_template.jinja")?, file(folder, "tokenizer_config.json")?);
    let chat = ChatFormat::read(template.as_deref(), config.as_deref()).map_err(unfit)?;
    let ends = ends(&tokenizer, &chat, file(folder, "generation_config.json")?.as_deref());
    Ok(Files { tokenizer, chat, ends })
}

/// Reads the splits for training and validation for the job's method and a model of this shape.
pub(super) async fn read(
    artifacts: &Artifacts,
    job: &TrainingJob,
    dataset: &Digest,
    manifest: &Manifest,
    row_type: RowType,
    files: &Files,
    model: &Config,
) -> Result<[Vec<Row>; 2]> {
    let spec = job.spec.as_ref();
    let asked = spec.and_then(|spec| spec.method.as_ref());
    validate::check_method(asked, row_type).map_err(|reason| Error::Unfit { field: "spec.method", reason })?;
    let method = method_of(asked);
    // Before a template is missed that such a model never has.
    method.check_model(model).map_err(|reason| Error::Unfit { field: "spec.method", reason })?;
    let length = spec.map_or(1, |spec| spec.sequence_length.max(1) as usize);
    let supervisor = Supervisor {
        tokenizer: &files.tokenizer,
        chat: &files.chat,
        // A row's inputs lack its last id.
        max_length: length + 1,
        learn_prompts: matches!(method, Method::Supervised { learn_prompts: true }),
    };
    let sources = sources(method, model, &files.tokenizer, length);
    let maker = Maker { supervisor, rewards: rewards_of(asked), sources };
    let mut splits = Vec::new();
    for split in [Split::Train, Split::Validation] {
        let mut rows = Vec::new();
        for path in paths(manifest, split) {
            let failed = |source| Error::Dataset { digest: dataset.to_string(), source };
            let bytes = artifacts.get_entry(dataset, path).await?;
            for document in tidemill_dataset::read_shard::<Document>(bytes, path).map_err(failed)? {
                rows.push(maker.row(method, &document.map_err(failed)?)?);
            }
        }
        splits.push(rows);
    }
    let (validation, train) = (splits.pop().unwrap_or_default(), splits.pop().unwrap_or_default());
    Ok([train, validation])
}

/// How an encoder-decoder's rows are made, where the model is one.
fn sources<'a>(method: Method, model: &Config, tokenizer: &'a Tokenizer, length: usize) -> Option<Sources<'a>> {
    let (Method::SequenceToSequence { max_target_length }, Config::T5(t5)) = (method, model) else { return None };
    Some(Sources {
        tokenizer,
        start: t5.decoder_start_token_id,
        end: t5.eos_token_id.and_then(|id| u32::try_from(id).ok()),
        max_source_length: length,
        max_target_length: if max_target_length == 0 { length } else { max_target_length },
    })
}

fn paths(manifest: &Manifest, split: Split) -> Vec<&str> {
    let prefix = format!("{split}/text-");
    let mut paths: Vec<&str> = manifest.entries.iter().map(|entry| entry.path.as_str()).collect();
    paths.retain(|path| path.starts_with(&prefix));
    paths.sort_unstable();
    paths
}

/// The end of an answer, as the model's files name it in up to three places.
fn ends(tokenizer: &Tokenizer, chat: &ChatFormat, generation_config: Option<&[u8]>) -> Vec<u32> {
    let config: Value = generation_config.and_then(|bytes| serde_json::from_slice(bytes).ok()).unwrap_or_default();
    let listed = match &config["eos_token_id"] {
        Value::Array(ids) => ids.iter().collect(),
        id => vec![id],
    };
    let listed = listed.into_iter().filter_map(|id| u32::try_from(id.as_u64()?).ok());
    let mut ends: Vec<u32> = listed.chain(tokenizer.token_id(&chat.eos_token)).chain(tokenizer.end_of_text()).collect();
    ends.sort_unstable();
    ends.dedup();
    ends
}

/// Makes rows for one model.
struct Maker<'a> {
    supervisor: Supervisor<'a>,
    rewards: Vec<Reward>,
    sources: Option<Sources<'a>>,
}

impl Maker<'_> {
    fn row(&self, method: Method, document: &Document) -> Result<Row> {
        let unfit =
            |reason: String| Error::Unfit { field: "dataset_digest", reason: format!("row {}: {reason}", document.id) };
        let lesson: Lesson = serde_json::from_str(&document.text).map_err(|error| unfit(error.to_string()))?;
        let text = |error: tidemill_text::Error| unfit(error.to_string());
        if let Some(sources) = &self.sources {
            let made = sources.sequence(&lesson).map_err(text)?;
            let source = made.source.into_iter().map(|id| id as u32).collect();
            return Ok(Row::Sourced { source, text: sequence(made.text) });
        }
        let supervisor = &self.supervisor;
        Ok(match method {
            Method::Preference { max_completion_length, .. } => {
                let most = if max_completion_length == 0 { usize::MAX } else { max_completion_length };
                Row::Pair(supervisor.pair(&lesson).map_err(text)?.map(|answer| sequence(answer.first(most))))
            }
            Method::Judged { .. } => {
                let (supervised, good) = supervisor.judged(&lesson).map_err(text)?;
                let prompt = 1 + supervised.targets.iter().take_while(|target| **target == IGNORED).count();
                Row::Judged { sequence: sequence(supervised), prompt, good }
            }
            Method::Grouped(constants) => {
                let question = supervisor.question(&lesson).map_err(text)?;
                Row::Prompt(prompt(question, constants, &self.rewards, supervisor.max_length).map_err(unfit)?)
            }
            _ => Row::Answer(sequence(supervisor.sequence(&lesson).map_err(text)?)),
        })
    }
}

/// A prompt that leaves room for answers, with what they are compared with.
fn prompt(
    question: Question,
    constants: Grouped,
    rewards: &[Reward],
    room: usize,
) -> std::result::Result<Prompt, String> {
    let (asked, longest) = (question.ids.len(), constants.max_completion_length);
    if asked + longest > room {
        return Err(format!(
            "its prompt of {asked} tokens leaves no room for an answer of max_completion_length = {longest}; raise \
             sequence_length, lower max_completion_length, or leave the row out"
        ));
    }
    if let Some(problem) = rewards.iter().find_map(|reward| reward.rule.problem(question.answer.as_deref())) {
        return Err(problem);
    }
    Ok(Prompt { ids: question.ids.into(), answer: question.answer.map(String::into_boxed_str) })
}

fn sequence(supervised: Supervised) -> Sequence {
    // Ids of a vocabulary of at most a million.
    Sequence {
        inputs: supervised.inputs.into_iter().map(|id| id as u32).collect(),
        targets: supervised.targets.into_iter().map(|target| target as i32).collect(),
    }
}

pub(super) fn file(folder: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let path = folder.join(name);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(&path)(error)),
    }
}
