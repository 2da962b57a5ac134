//! `config.json` as Hugging Face writes it, with a closed schema: what is not understood is refused, by field name.

mod activation;
mod bert;
mod fields;
mod gpt2;
mod llama;
mod rope;
mod t5;

use serde_json::{Map, Value, json};

pub use activation::Activation;
pub use bert::BertConfig;
pub(crate) use fields::Fields;
pub use gpt2::Gpt2Config;
pub use llama::{LlamaConfig, LlamaMember};
pub use rope::{Rope, RopeScaling};
pub use t5::T5Config;

/// The shape of a model.
#[derive(Clone, Debug, PartialEq)]
pub enum Config {
    /// `"model_type": "llama"`, `"mistral"`, `"qwen2"` or `"qwen3"`.
    Llama(LlamaConfig),
    /// `"model_type": "gpt2"`.
    Gpt2(Gpt2Config),
    /// `"model_type": "bert"`.
    Bert(BertConfig),
    /// `"model_type": "t5"`.
    T5(T5Config),
}

/// What a configuration may be of.
const SUPPORTED: &str = "llama, mistral, qwen2, qwen3, gpt2, bert and t5 are supported";

impl Config {
    /// Parses and checks `config.json`; every problem is listed.
    pub fn from_json(text: &str) -> Result<Self, Vec<String>> {
        let map: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| vec![format!("not a JSON object: {error}")])?;
        let mut fields = Fields::new(map);
        let Some(model_type) = fields.text("model_type") else {
            return Err(vec![format!("model_type: missing; {SUPPORTED}")]);
        };
        let config = match (model_type.as_str(), LlamaMember::named(&model_type)) {
            (_, Some(member)) => Self::Llama(llama::read(member, &mut fields)),
            ("gpt2", _) => Self::Gpt2(gpt2::read(&mut fields)),
            ("bert", _) => Self::Bert(bert::read(&mut fields)),
            ("t5", _) => Self::T5(t5::read(&mut fields)),
            (other, _) => return Err(vec![format!("model_type: {other:?} is unknown; {SUPPORTED}")]),
        };
        fields.require_default("is_encoder_decoder", &json!(false));
        fields.accept_any(GENERIC);
        let mut problems = fields.finish();
        if problems.is_empty() {
            problems = config.problems();
        }
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    /// `config.json`: sorted keys, two spaces, a line feed at the end.
    pub fn to_json(&self) -> String {
        let mut entries = match self {
            Self::Llama(config) => llama::write(config),
            Self::Gpt2(config) => gpt2::write(config),
            Self::Bert(config) => bert::write(config),
            Self::T5(config) => t5::write(config),
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
            Self::Bert(config) => bert::problems(config),
            Self::T5(config) => t5::problems(config),
        }
    }

    /// What `config.json` calls the family.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Llama(config) => config.member.model_type(),
            Self::Gpt2(_) => "gpt2",
            Self::Bert(_) => "bert",
            Self::T5(_) => "t5",
        }
    }

    /// Entries of the vocabulary.
    pub fn vocabulary_size(&self) -> i64 {
        match self {
            Self::Llama(config) => config.vocab_size,
            Self::Gpt2(config) => config.vocab_size,
            Self::Bert(config) => config.vocab_size,
            Self::T5(config) => config.vocab_size,
        }
    }

    /// Longest sequence in tokens.
    pub fn context_length(&self) -> i64 {
        match self {
            Self::Llama(config) => config.max_position_embeddings,
            Self::Gpt2(config) => config.n_positions,
            Self::Bert(config) => config.max_position_embeddings,
            Self::T5(_) => T5Config::CONTEXT,
        }
    }

    /// Layers, of an encoder-decoder those of the decoder.
    pub fn layers(&self) -> i64 {
        match self {
            Self::Llama(config) => config.num_hidden_layers,
            Self::Gpt2(config) => config.n_layer,
            Self::Bert(config) => config.num_hidden_layers,
            Self::T5(config) => config.num_decoder_layers,
        }
    }

    /// Heads of queries.
    pub fn heads(&self) -> i64 {
        match self {
            Self::Llama(config) => config.num_attention_heads,
            Self::Gpt2(config) => config.n_head,
            Self::Bert(config) => config.num_attention_heads,
            Self::T5(config) => config.num_heads,
        }
    }

    /// Heads of keys and values.
    pub fn kv_heads(&self) -> i64 {
        match self {
            Self::Llama(config) => config.num_key_value_heads,
            Self::Gpt2(config) => config.n_head,
            Self::Bert(config) => config.num_attention_heads,
            Self::T5(config) => config.num_heads,
        }
    }

    /// Width of a head.
    pub fn head_size(&self) -> i64 {
        match self {
            Self::Llama(config) => config.head_dim,
            Self::Gpt2(config) => config.n_embd / config.n_head,
            Self::Bert(config) => config.hidden_size / config.num_attention_heads,
            Self::T5(config) => config.d_kv,
        }
    }

    /// The token that ends a text, where the configuration names one.
    pub fn end_of_text(&self) -> Option<i64> {
        match self {
            Self::Llama(config) => config.eos_token_id,
            Self::Gpt2(config) => config.eos_token_id,
            Self::Bert(_) => None,
            Self::T5(config) => config.eos_token_id,
        }
    }

    /// Whether the model continues texts token by token, from the text alone.
    pub fn is_decoder(&self) -> bool {
        matches!(self, Self::Llama(_) | Self::Gpt2(_))
    }
}

/// Sizes that must be positive: the problem of each that is not.
fn sizes(sizes: &[(&str, i64)]) -> Vec<String> {
    let wrong = sizes.iter().filter(|(_, size)| *size < 1);
    wrong.map(|(name, size)| format!("{name}: {size} is not a positive integer")).collect()
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
