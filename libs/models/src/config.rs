//! `config.json` as Hugging Face writes it, with a closed schema: what is not understood is refused, by field name.

mod fields;
mod gpt2;
mod llama;

use serde_json::{Map, Value};

pub use gpt2::{Activation, Gpt2Config};
pub use llama::LlamaConfig;

use fields::Fields;

/// The shape of a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Config {
    /// `"model_type": "llama"`.
    Llama(LlamaConfig),
    /// `"model_type": "gpt2"`.
    Gpt2(Gpt2Config),
}

impl Config {
    /// Parses and checks `config.json`; every problem is listed.
    pub fn from_json(text: &str) -> Result<Self, Vec<String>> {
        let map: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| vec![format!("not a JSON object: {error}")])?;
        let mut fields = Fields::new(map);
        fields.accept_any(GENERIC);
        fields.require_default("is_encoder_decoder", &Value::Bool(false));
        let config = match fields.text("model_type").as_deref() {
            Some("llama") => Some(Self::Llama(llama::read(&mut fields))),
            Some("gpt2") => Some(Self::Gpt2(gpt2::read(&mut fields))),
            Some(other) => return Err(vec![format!("model_type: {other:?} is unknown; llama and gpt2 are supported")]),
            None => return Err(vec!["model_type: missing; llama and gpt2 are supported".to_owned()]),
        };
        let mut problems = fields.finish();
        if problems.is_empty()
            && let Some(config) = &config
        {
            problems = config.problems();
        }
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            _ => Err(problems),
        }
    }

    /// `config.json`: sorted keys, two spaces, a line feed at the end.
    pub fn to_json(&self) -> String {
        let mut entries = match self {
            Self::Llama(config) => llama::write(config),
            Self::Gpt2(config) => gpt2::write(config),
        };
        entries.push(("dtype", Value::from("float32")));
        entries.sort_by_key(|(name, _)| *name);
        let map: Map<String, Value> = entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        format!("{:#}\n", Value::Object(map))
    }

    /// What is contradictory about the numbers, by field.
    pub fn problems(&self) -> Vec<String> {
        match self {
            Self::Llama(config) => llama::problems(config),
            Self::Gpt2(config) => gpt2::problems(config),
        }
    }

    /// Entries of the vocabulary.
    pub fn vocabulary_size(&self) -> i64 {
        match self {
            Self::Llama(config) => config.vocab_size,
            Self::Gpt2(config) => config.vocab_size,
        }
    }

    /// Longest sequence in tokens.
    pub fn context_length(&self) -> i64 {
        match self {
            Self::Llama(config) => config.max_position_embeddings,
            Self::Gpt2(config) => config.n_positions,
        }
    }

    /// Layers.
    pub fn layers(&self) -> i64 {
        match self {
            Self::Llama(config) => config.num_hidden_layers,
            Self::Gpt2(config) => config.n_layer,
        }
    }

    /// Heads of keys and values.
    pub fn kv_heads(&self) -> i64 {
        match self {
            Self::Llama(config) => config.num_key_value_heads,
            Self::Gpt2(config) => config.n_head,
        }
    }

    /// Width of a head.
    pub fn head_size(&self) -> i64 {
        match self {
            Self::Llama(config) => config.head_dim,
            Self::Gpt2(config) => config.n_embd / config.n_head,
        }
    }

    /// The token that ends a text, where the configuration names one.
    pub fn end_of_text(&self) -> Option<i64> {
        match self {
            Self::Llama(config) => config.eos_token_id,
            Self::Gpt2(config) => config.eos_token_id,
        }
    }
}

/// Fields that transformers writes into any configuration and that change nothing here.
const GENERIC: &[&str] = &[
    "_name_or_path",
    "architectures",
    "chunk_size_feed_forward",
    "dtype",
    "id2label",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "problem_type",
    "return_dict",
    "torch_dtype",
    "transformers_version",
    "use_cache",
];

#[cfg(test)]
mod tests;
