//! tokenizer_config.json, as `transformers` reads it beside tokenizer.json.

use serde_json::json;

use crate::{ChatTemplate, Tokenizer};

/// The file's bytes. The template, where there is one, also belongs beside it as chat_template.jinja, which newer readers prefer.
#[must_use]
pub fn tokenizer_config(tokenizer: &Tokenizer, template: Option<&ChatTemplate>, context_length: usize) -> Vec<u8> {
    let end = tokenizer.end_of_text().and_then(|id| tokenizer.token(id));
    let padding = tokenizer.padding().and_then(|id| tokenizer.token(id)).or_else(|| end.clone());
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context_length,
        "bos_token": null,
        "eos_token": end,
        "pad_token": padding,
        "unk_token": null,
        "clean_up_tokenization_spaces": false,
    });
    if let Some(template) = template {
        config["chat_template"] = template.source().into();
    }
    if let Some(mask) = tokenizer.mask_token(None).ok().and_then(|id| tokenizer.token(id)) {
        config["mask_token"] = mask.into();
    }
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
        let bytes = tokenizer_config(&tokenizer, Some(&ChatTemplate::plain()), 256);
        let config: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(config["eos_token"], "<|endoftext|>");
        assert_eq!(config["model_max_length"], 256);
        assert_eq!(config["chat_template"], crate::PLAIN_TEMPLATE);
    }
}
