//! llama.cpp's names of pre-tokenizers, as the parts of tokenizer.json that split the same way.

use serde_json::{Value, json};

use crate::Error;

/// What differs between byte-level BPE tokenizers besides the vocabulary.
pub(super) struct Pre {
    pub(super) normalizer: Value,
    pub(super) pre_tokenizer: Value,
    /// A word that is in the vocabulary as a whole is one token, whatever the merges say.
    pub(super) ignores_merges: bool,
    /// A text begins with the begin token unless the file says otherwise.
    pub(super) adds_begin: bool,
}

/// Words, numbers by up to 3 or by single digits, punctuation with its line feeds, white space.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN_2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

pub(super) fn by_name(name: Option<&str>) -> Result<Pre, Error> {
    let (plain, split) = (byte_level(true), |pattern: &str| {
        let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
        json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]})
    });
    let pre = Pre { normalizer: Value::Null, pre_tokenizer: plain.clone(), ignores_merges: false, adds_begin: false };
    Ok(match name {
        Some("gpt-2") => pre,
        Some("smollm") => {
            let digits = json!({"type": "Digits", "individual_digits": true});
            Pre { pre_tokenizer: json!({"type": "Sequence", "pretokenizers": [digits, plain]}), ..pre }
        }
        Some("llama-bpe" | "llama-v3" | "llama3") => {
            Pre { pre_tokenizer: split(LLAMA_3), ignores_merges: true, adds_begin: true, ..pre }
        }
        Some("qwen2" | "deepseek-r1-qwen") => {
            Pre { normalizer: json!({"type": "NFC"}), pre_tokenizer: split(QWEN_2), ..pre }
        }
        other => {
            let given = other.map_or("missing".to_owned(), |name| format!("{name:?} is not known"));
            return Err(Error::Invalid(format!(
                "tokenizer.ggml.pre: {given}; gpt-2, smollm, llama-bpe and qwen2 are. Take tokenizer.json from the model's original directory"
            )));
        }
    })
}

fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}
