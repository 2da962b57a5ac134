//! A model in memory: its engine, tokenizer, chat template and defaults, read from the folder of one model version.

mod generation_config;

use std::path::Path;
use std::sync::Arc;

use tidemill_models::sampling::Sampling;
use tidemill_text::{ChatTemplate, Tokenizer};
use tokio_util::task::TaskTracker;

use crate::engine::{Engine, Limits, Network};
pub(crate) use generation_config::Defaults;

/// A model in memory. The last holder that lets go ends its engine, after what that was given is finished.
#[derive(Debug)]
pub(crate) struct Loaded {
    /// Digest of the directory.
    pub(crate) digest: String,
    pub(crate) engine: Engine,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) template: ChatTemplate,
    pub(crate) defaults: Defaults,
    /// Most tokens of prompt and answer together.
    pub(crate) context: usize,
    /// Tokens that end an answer.
    pub(crate) end: Arc<[u32]>,
    /// What an empty prompt stands for: the beginning of a document.
    pub(crate) start: Option<u32>,
    pub(crate) bos_token: String,
    pub(crate) eos_token: String,
}

/// Why a folder cannot be served; names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{file} cannot be read: {source}")]
    File { file: &'static str, source: std::io::Error },
    #[error("{file}: {reason}")]
    Content { file: &'static str, reason: String },
    #[error(transparent)]
    Model(#[from] tidemill_models::Error),
    #[error("no thread for the model: {0}")]
    Thread(std::io::Error),
}

impl Loaded {
    /// Reads a folder and starts its engine. Blocks.
    pub(crate) fn read(folder: &Path, digest: &str, limits: Limits, threads: &TaskTracker) -> Result<Self, Error> {
        let tokenizer = required(folder, "tokenizer.json")?;
        let tokenizer = Tokenizer::from_bytes(&tokenizer).map_err(content("tokenizer.json"))?;
        let names = json(folder, "tokenizer_config.json")?;
        let template = match optional(folder, "chat_template.jinja")? {
            Some(source) => {
                let source = String::from_utf8(source).map_err(content("chat_template.jinja"))?;
                ChatTemplate::parse("chat_template.jinja", &source).map_err(content("chat_template.jinja"))?
            }
            None => match names["chat_template"].as_str() {
                Some(source) => {
                    ChatTemplate::parse("tokenizer_config.json", source).map_err(content("tokenizer_config.json"))?
                }
                None => ChatTemplate::plain(),
            },
        };
        let defaults =
            Defaults::from_json(&json(folder, "generation_config.json")?).map_err(content("generation_config.json"))?;

        let selection = tidemill_torch::device::select();
        for warning in &selection.warnings {
            tracing::warn!(warning, "the GPU is used less well than it could be");
        }
        let _undisturbed = tidemill_torch::process::undisturbed();
        let mut model = tidemill_models::load(folder, selection.device)?;
        // One product a layer is faster than three.
        model.merge_adapter()?;
        let config = model.config();
        if !config.is_decoder() {
            let kind = config.model_type();
            let reason = format!("a {kind} is not served: only decoders are, which continue a text");
            return Err(Error::Content { file: "config.json", reason });
        }
        let vocabulary = tokenizer.vocabulary_size();
        if usize::try_from(config.vocabulary_size()).unwrap_or(0) < vocabulary {
            let reason = format!("it has {vocabulary} tokens, and the model only {}", config.vocabulary_size());
            return Err(Error::Content { file: "tokenizer.json", reason });
        }
        let context = usize::try_from(config.context_length()).unwrap_or(usize::MAX);
        let mut end = defaults.end.clone();
        end.extend(config.end_of_text().and_then(|id| u32::try_from(id).ok()));
        end.extend(tokenizer.end_of_text());
        end.sort_unstable();
        end.dedup();
        let start = defaults.start.or(tokenizer.end_of_text()).or(end.first().copied());
        let device = selection.device;
        let engine = Engine::start(Network { model, vocabulary }, limits, threads).map_err(Error::Thread)?;
        tracing::info!(digest, ?device, context, vocabulary, "model loaded");
        Ok(Self {
            digest: digest.to_owned(),
            engine,
            template,
            defaults,
            context,
            end: end.into(),
            start: start.filter(|id| (*id as usize) < vocabulary),
            bos_token: token_name(&names["bos_token"]),
            eos_token: token_name(&names["eos_token"]),
            tokenizer,
        })
    }

    /// How tokens are drawn where a request does not say.
    pub(crate) fn sampling(&self) -> Sampling {
        self.defaults.sampling
    }
}

/// `"bos_token": "<s>"`, or the longer form with `content`.
fn token_name(value: &serde_json::Value) -> String {
    value.as_str().or_else(|| value["content"].as_str()).unwrap_or_default().to_owned()
}

fn content<E: std::fmt::Display>(file: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::Content { file, reason: error.to_string() }
}

fn required(folder: &Path, file: &'static str) -> Result<Vec<u8>, Error> {
    std::fs::read(folder.join(file)).map_err(|source| Error::File { file, source })
}

fn optional(folder: &Path, file: &'static str) -> Result<Option<Vec<u8>>, Error> {
    match required(folder, file) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// A JSON file that may be absent, which reads as null.
fn json(folder: &Path, file: &'static str) -> Result<serde_json::Value, Error> {
    match optional(folder, file)? {
        Some(bytes) => serde_json::from_slice(&bytes).map_err(content(file)),
        None => Ok(serde_json::Value::Null),
    }
}
