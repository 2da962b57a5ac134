//! The tokenizer files of a Hugging Face directory from the `tokenizer.ggml.*` keys of a GGUF file: byte-level BPE with the
//! pre-tokenizers that llama.cpp knows by name.

mod pre;

use serde_json::{Map, Value, json};

use crate::{ChatTemplate, Error, Tokenizer};

const CONTROL: i64 = 3;
const USER_DEFINED: i64 = 4;

/// What a GGUF file says about its tokenizer, as plain data.
#[derive(Clone, Debug, Default)]
pub struct GgufVocabulary {
    /// `tokenizer.ggml.model`: the scheme; `gpt2` is byte-level BPE.
    pub model: String,
    /// `tokenizer.ggml.pre`: how text is split before merging.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`: names by id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.token_type`, by id; empty where all are ordinary.
    pub types: Vec<i64>,
    /// `tokenizer.ggml.merges`: pairs with a space between, first merged first.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.bos_token_id`.
    pub begin: Option<i64>,
    /// `tokenizer.ggml.eos_token_id`.
    pub end: Option<i64>,
    /// `tokenizer.ggml.padding_token_id`.
    pub padding: Option<i64>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown: Option<i64>,
    /// `tokenizer.ggml.add_bos_token`; the pre-tokenizer decides where absent.
    pub add_begin: Option<bool>,
    /// `tokenizer.ggml.add_eos_token`.
    pub add_end: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
}

impl GgufVocabulary {
    /// The tokenizer, whose `json` is tokenizer.json.
    pub fn tokenizer(&self) -> Result<Tokenizer, Error> {
        if self.model != "gpt2" {
            let text =
                "only gpt2 (byte-level BPE) is supported; take tokenizer.json from the model's original directory";
            return Err(Error::Invalid(format!("tokenizer.ggml.model: {:?}: {text}", self.model)));
        }
        let pre = pre::by_name(self.pre.as_deref())?;
        if !self.types.is_empty() && self.types.len() != self.tokens.len() {
            let (types, tokens) = (self.types.len(), self.tokens.len());
            return Err(Error::Invalid(format!("tokenizer.ggml.token_type: {types} types for {tokens} tokens")));
        }
        let file = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": self.added(),
            "normalizer": pre.normalizer,
            "pre_tokenizer": pre.pre_tokenizer,
            "post_processor": self.post_processor(pre.adds_begin)?,
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": null,
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": false,
                "byte_fallback": false,
                "ignore_merges": pre.ignores_merges,
                "vocab": self.vocabulary()?,
                "merges": self.pairs()?,
            },
        });
        Tokenizer::from_bytes(format!("{file:#}\n").as_bytes())
    }

    /// The chat template, checked; none where the file has none.
    pub fn template(&self) -> Result<Option<ChatTemplate>, Error> {
        self.chat_template.as_deref().map(|source| ChatTemplate::parse("tokenizer.chat_template", source)).transpose()
    }

    /// tokenizer_config.json.
    pub fn config(&self, context_length: i64) -> Result<Vec<u8>, Error> {
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": context_length,
            "bos_token": self.name("bos_token_id", self.begin)?,
            "eos_token": self.name("eos_token_id", self.end)?,
            "pad_token": self.name("padding_token_id", self.padding)?,
            "unk_token": self.name("unknown_token_id", self.unknown)?,
            "clean_up_tokenization_spaces": false,
            "chat_template": self.chat_template,
        });
        Ok(format!("{config:#}\n").into_bytes())
    }

    fn name(&self, key: &str, id: Option<i64>) -> Result<Option<&str>, Error> {
        let Some(id) = id else { return Ok(None) };
        let token = usize::try_from(id).ok().and_then(|index| self.tokens.get(index));
        let missing =
            || Error::Invalid(format!("tokenizer.ggml.{key}: {id} is not one of {} tokens", self.tokens.len()));
        token.map(|token| Some(token.as_str())).ok_or_else(missing)
    }

    fn added(&self) -> Vec<Value> {
        let kinds = self.tokens.iter().zip(&self.types).enumerate();
        kinds
            .filter(|(_, (_, kind))| matches!(**kind, CONTROL | USER_DEFINED))
            .map(|(id, (token, kind))| {
                json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": *kind == CONTROL})
            })
            .collect()
    }

    fn vocabulary(&self) -> Result<Map<String, Value>, Error> {
        let mut vocabulary = Map::with_capacity(self.tokens.len());
        for (id, token) in self.tokens.iter().enumerate() {
            if let Some(first) = vocabulary.insert(token.clone(), json!(id)) {
                return Err(Error::Invalid(format!(
                    "tokenizer.ggml.tokens: {token:?} is both token {first} and token {id}"
                )));
            }
        }
        Ok(vocabulary)
    }

    fn pairs(&self) -> Result<Vec<Value>, Error> {
        let pair = |(rank, merge): (usize, &String)| match merge.split_once(' ') {
            Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
                Ok(json!([left, right]))
            }
            _ => Err(Error::Invalid(format!("tokenizer.ggml.merges: merge {rank}, {merge:?}, is not a pair"))),
        };
        self.merges.iter().enumerate().map(pair).collect()
    }

    /// Puts the tokens around a text that the model expects there.
    fn post_processor(&self, adds_begin: bool) -> Result<Value, Error> {
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true});
        let wanted = |wanted: bool, id: Option<i64>| id.filter(|_| wanted);
        let begin = wanted(self.add_begin.unwrap_or(adds_begin), self.begin);
        let end = wanted(self.add_end.unwrap_or(false), self.end);
        let begin = self.name("bos_token_id", begin)?.zip(begin);
        let end = self.name("eos_token_id", end)?.zip(end);
        if begin.is_none() && end.is_none() {
            return Ok(byte_level);
        }
        let around = |sequence: &str, number: i32| {
            let special = |(name, _): (&str, i64)| json!({"SpecialToken": {"id": name, "type_id": number}});
            let text = json!({"Sequence": {"id": sequence, "type_id": number}});
            begin.map(special).into_iter().chain([text]).chain(end.map(special)).collect::<Vec<_>>()
        };
        let special = |(name, id): (&str, i64)| (name.to_owned(), json!({"id": name, "ids": [id], "tokens": [name]}));
        let template = json!({
            "type": "TemplateProcessing",
            "single": around("A", 0),
            "pair": ([around("A", 0), around("B", 1)].concat()),
            "special_tokens": (begin.into_iter().chain(end).map(special).collect::<Map<_, _>>()),
        });
        Ok(json!({"type": "Sequence", "processors": [byte_level, template]}))
    }
}

#[cfg(test)]
mod tests;
