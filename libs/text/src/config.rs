//! tokenizer_config.json, as `transformers` reads it beside tokenizer.json.

use serde_json::json;

use crate::{ChatTemplate, Tokenizer};

/// The file's bytes. The template also belongs beside it as chat_template.jinja, which newer readers prefer.
#[must_use]
pub fn tokenizer_config(tokenizer: &Tokenizer, template: &ChatTemplate, context_length: usize) -> Vec<u8> {
    let end = tokenizer.end_of_text().and_then(|id| tokenizer.token(id));
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "bos_token": null,
        "eos_token": end,
        "pad_token": end,
        "unk_token": null,
        "clean_up_tokenization_spaces": false,
        "chat_template": template.source(),
    });
    let mut bytes = serde_json::to_vec_pretty(&config).expect("a JSON value is always serialised");
    bytes.push(b'\n');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SPECIAL_TOKENS;

    #[test]
    fn the_config_names_the_end_of_text_and_the_template() {
        let tokenizer = Tokenizer::train_bpe(["x"], 260, &SPECIAL_TOKENS).unwrap();
        let bytes = tokenizer_config(&tokenizer, &ChatTemplate::plain(), 256);
        let config: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(config["eos_token"], "<|endoftext|>");
        assert_eq!(config["model_max_length"], 256);
        assert_eq!(config["chat_template"], crate::PLAIN_TEMPLATE);
    }
}
