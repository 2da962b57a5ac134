//! A model on disk: a Hugging Face directory or a GGUF file.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tch::Device;
use tidemill_models::{CONFIG_FILE, Config, Model, gguf};
use tidemill_text::{ChatFormat, Tokenizer};
use tidemill_training::import;

use super::{Failure, disk};

pub(super) const TOKENIZER_FILE: &str = "tokenizer.json";
pub(super) const TOKENIZER_CONFIG_FILE: &str = "tokenizer_config.json";
pub(super) const TEMPLATE_FILE: &str = "chat_template.jinja";
pub(super) const GENERATION_FILE: &str = "generation_config.json";

pub(super) struct Source {
    path: PathBuf,
    kind: Kind,
}

pub(super) enum Kind {
    Directory,
    Gguf(Box<gguf::Gguf>),
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let metadata = fs::metadata(path).map_err(|error| Failure::file(path, &error))?;
        let kind = match metadata.is_dir() {
            true if path.join(CONFIG_FILE).is_file() => Kind::Directory,
            true => {
                let text = format!("no {CONFIG_FILE} in it; a Hugging Face directory or a .gguf file is needed");
                return Err(Failure::content(path, text));
            }
            false => Kind::Gguf(Box::new(gguf::open(path)?)),
        };
        Ok(Self { path: path.to_owned(), kind })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The shape, without the weights.
    pub(super) fn config(&self) -> Result<Config, Failure> {
        Ok(match &self.kind {
            Kind::Directory => tidemill_models::read_config(&self.path)?,
            Kind::Gguf(gguf) => gguf.config()?,
        })
    }

    /// config.json, with what [`Config`] does not keep.
    pub(super) fn config_text(&self) -> Result<String, Failure> {
        let path = self.path.join(CONFIG_FILE);
        match &self.kind {
            Kind::Directory => fs::read_to_string(&path).map_err(|error| Failure::file(&path, &error)),
            Kind::Gguf(gguf) => Ok(gguf.config_json()?),
        }
    }

    /// The model with its weights.
    pub(super) fn model(&self) -> Result<Model, Failure> {
        Ok(match &self.kind {
            Kind::Directory => tidemill_models::load(&self.path, Device::Cpu)?,
            Kind::Gguf(gguf) => gguf.model(Device::Cpu)?,
        })
    }

    /// What the files hold, without reading it.
    pub(super) fn tensors(&self) -> Result<Vec<disk::Tensor>, Failure> {
        match &self.kind {
            Kind::Directory => disk::of_directory(&self.path),
            Kind::Gguf(gguf) => Ok(disk::of_gguf(gguf)),
        }
    }

    /// The tokenizer, where there is one.
    pub(super) fn tokenizer(&self) -> Result<Option<Tokenizer>, Failure> {
        match &self.kind {
            Kind::Directory => {
                let path = self.path.join(TOKENIZER_FILE);
                let read =
                    |bytes: Vec<u8>| Tokenizer::from_bytes(&bytes).map_err(|error| Failure::content(&path, error));
                self.file(TOKENIZER_FILE)?.map(read).transpose()
            }
            Kind::Gguf(gguf) => match import::vocabulary(gguf) {
                Some(vocabulary) => {
                    Ok(Some(vocabulary.tokenizer().map_err(|error| Failure::content(&self.path, error))?))
                }
                None => Ok(None),
            },
        }
    }

    /// How conversations are written.
    pub(super) fn chat(&self) -> Result<ChatFormat, Failure> {
        let (template, config) = match &self.kind {
            Kind::Directory => (self.file(TEMPLATE_FILE)?, self.file(TOKENIZER_CONFIG_FILE)?),
            Kind::Gguf(gguf) => match import::vocabulary(gguf) {
                Some(vocabulary) => {
                    let config = vocabulary.config(self.config()?.context_length());
                    (None, Some(config.map_err(|error| Failure::content(&self.path, error))?))
                }
                None => (None, None),
            },
        };
        ChatFormat::read(template.as_deref(), config.as_deref()).map_err(|error| Failure::content(&self.path, error))
    }

    /// The tokens that end a text: generation_config.json may name several.
    pub(super) fn ends(&self) -> Result<Vec<i64>, Failure> {
        let of_config = || Ok(self.config()?.end_of_text().into_iter().collect());
        let Kind::Directory = self.kind else { return of_config() };
        let Some(bytes) = self.file(GENERATION_FILE)? else { return of_config() };
        let path = self.path.join(GENERATION_FILE);
        let value: Value = serde_json::from_slice(&bytes).map_err(|error| Failure::content(&path, error))?;
        let ids = match &value["eos_token_id"] {
            Value::Null => return of_config(),
            Value::Array(ids) => ids.iter().map(Value::as_i64).collect(),
            id => id.as_i64().map(|id| vec![id]),
        };
        ids.ok_or_else(|| Failure::content(&path, "eos_token_id: neither a token id nor a list of them"))
    }

    /// A file of the directory, where it is there.
    pub(super) fn file(&self, name: &str) -> Result<Option<Vec<u8>>, Failure> {
        let path = self.path.join(name);
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Failure::file(&path, &error)),
        }
    }
}
