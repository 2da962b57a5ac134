//! The model that is measured, with all of its directory that measuring needs.

use std::path::Path;

use tidemill_models::{Config, Model};
use tidemill_proto::evaluation::v1::Evaluation;
use tidemill_text::{ChatFormat, Message, Passage, Sources, Supervisor, Tokenizer};

use crate::error::{Error, Result};

/// What is measured.
pub(crate) struct Subject<'a> {
    pub(crate) evaluation: &'a Evaluation,
    pub(crate) model: &'a Model,
    pub(crate) tokenizer: &'a Tokenizer,
    /// Whether it is measured on rows.
    pub(crate) rows: bool,
    /// How its conversations are written; where it is measured on rows.
    pub(crate) chat: &'a ChatFormat,
    pub(crate) folder: &'a Path,
}

impl Subject<'_> {
    /// The model's digest.
    pub(crate) fn model_digest(&self) -> &str {
        &self.evaluation.model_digest
    }

    /// What makes sequences of rows, as long as the model reads.
    pub(crate) fn supervisor(&self) -> Supervisor<'_> {
        // A row's inputs lack its last token.
        let max_length = self.model.config().context_length() as usize + 1;
        Supervisor { tokenizer: self.tokenizer, chat: self.chat, max_length, learn_prompts: false }
    }

    /// What makes sources and texts of rows; of an encoder-decoder alone.
    pub(crate) fn sources(&self) -> Option<Sources<'_>> {
        let Config::T5(config) = self.model.config() else { return None };
        let longest = self.model.config().context_length() as usize;
        Some(Sources {
            tokenizer: self.tokenizer,
            start: config.decoder_start_token_id,
            end: config.eos_token_id.and_then(|id| u32::try_from(id).ok()),
            max_source_length: longest,
            max_target_length: longest,
        })
    }

    /// Refuses what the model's family cannot do with the dataset and the suite.
    pub(crate) fn check_family(&self, prompts: usize) -> Result<()> {
        let (field, reason) = match (self.model.config(), self.rows) {
            (Config::Bert(_), true) => ("dataset_digest", "which gives no answers: measure it on packed tokens"),
            (Config::Bert(bert), _) if !bert.masked_lm => {
                ("model_version", "without a masked-LM head: there is nothing that it guesses")
            }
            (Config::Bert(_), _) if prompts > 0 => {
                ("suite.prompts", "which continues no text: leave the prompts out of the suite")
            }
            (Config::T5(_), false) => {
                ("dataset_digest", "which writes texts of sources: measure it on rows, prompts with completions")
            }
            _ => return Ok(()),
        };
        let (digest, family) = (self.model_digest().to_owned(), self.model.config().model_type());
        Err(Error::Family { field, digest, family, reason })
    }

    /// The ids of a prompt of the suite: where rows are measured, it is what a user says, or what an encoder-decoder reads.
    pub(crate) fn prompt(&self, index: usize, prompt: &str) -> Result<Vec<u32>> {
        let ids = if let Some(sources) = self.sources() {
            sources.source(prompt).map(|ids| ids.into_iter().map(|id| id as u32).collect())
        } else if self.rows && self.chat.template.is_some() {
            self.supervisor().prompt(&Passage::Messages(vec![Message::new("user", prompt)]))
        } else {
            self.tokenizer.encode(prompt)
        };
        ids.map_err(|source| Error::Text { what: format!("suite.prompts[{index}]"), source })
    }
}

/// Reads how conversations are written from a model's directory.
pub(crate) fn chat_format(folder: &Path, digest: &str) -> Result<ChatFormat> {
    let (template, config) = (optional(folder, "chat_template.jinja")?, optional(folder, "tokenizer_config.json")?);
    let what = format!("model {digest}");
    ChatFormat::read(template.as_deref(), config.as_deref()).map_err(|source| Error::Text { what, source })
}

/// Refuses a model that does not know all ids of a tokenizer.
pub(crate) fn check_vocabulary(model: &Model, tokenizer: &Tokenizer, digest: &str) -> Result<()> {
    let (known, tokenizer) = (model.config().vocabulary_size(), tokenizer.vocabulary_size());
    if tokenizer as i64 <= known {
        return Ok(());
    }
    Err(Error::Vocabulary { digest: digest.to_owned(), tokenizer, model: known })
}

/// The bytes of a file that may be absent.
pub(crate) fn optional(folder: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    let path = folder.join(name);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { path, source }),
    }
}
