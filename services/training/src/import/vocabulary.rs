//! The tokenizer inside a GGUF file, as plain data.

use tidemill_models::gguf::{Gguf, Value};
use tidemill_text::GgufVocabulary;

/// None where the file has no tokenizer. Values of an unexpected type count as absent.
pub fn vocabulary(gguf: &Gguf) -> Option<GgufVocabulary> {
    let value = |key: &str| gguf.metadata().get(&format!("tokenizer.{key}"));
    let text = |key: &str| match value(key) {
        Some(Value::Text(text)) => Some(text.clone()),
        _ => None,
    };
    let texts = |key: &str| match value(key) {
        Some(Value::Texts(texts)) => texts.clone(),
        _ => Vec::new(),
    };
    let id = |key: &str| match value(key) {
        Some(Value::Integer(id)) => Some(*id),
        _ => None,
    };
    let flag = |key: &str| match value(key) {
        Some(Value::Bool(flag)) => Some(*flag),
        _ => None,
    };
    Some(GgufVocabulary {
        model: text("ggml.model")?,
        pre: text("ggml.pre"),
        tokens: texts("ggml.tokens"),
        types: match value("ggml.token_type") {
            Some(Value::Integers(types)) => types.clone(),
            _ => Vec::new(),
        },
        merges: texts("ggml.merges"),
        begin: id("ggml.bos_token_id"),
        end: id("ggml.eos_token_id"),
        padding: id("ggml.padding_token_id"),
        unknown: id("ggml.unknown_token_id"),
        add_begin: flag("ggml.add_bos_token"),
        add_end: flag("ggml.add_eos_token"),
        chat_template: text("chat_template"),
    })
}
