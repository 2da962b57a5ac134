//! tokenizer_config.json, as `transformers` reads it beside tokenizer.json.

use serde_json::{Map, Value, json};

use crate::{ChatTemplate, Error, Tokenizer};

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

/// The file's bytes of a directory that names its special tokens in special_tokens_map.json, as older ones do. As in `transformers`, that file
/// is not read where tokenizer_config.json has `added_tokens_decoder`, and else its tokens count.
///
/// # Errors
/// One of them is no JSON object.
pub fn with_special_tokens(tokenizer_config: Option<&[u8]>, special_tokens_map: &[u8]) -> Result<Vec<u8>, Error> {
    let read = |file: &str, bytes: &[u8]| -> Result<Map<String, Value>, Error> {
        serde_json::from_slice(bytes).map_err(|error| Error::Tokenizer(format!("{file} beside it: {error}")))
    };
    let mut config = tokenizer_config.map_or(Ok(Map::new()), |bytes| read("tokenizer_config.json", bytes))?;
    if !config.contains_key("added_tokens_decoder") {
        config.extend(read("special_tokens_map.json", special_tokens_map)?);
    }
    Ok(format!("{:#}\n", Value::Object(config)).into_bytes())
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

    #[test]
    fn special_tokens_of_older_directories_come_from_a_file_of_their_own() {
        let map = br#"{"eos_token": {"content": "</s>", "lstrip": false}, "mask_token": "<hide>"}"#;
        let with = |config: Option<&[u8]>| -> Value {
            serde_json::from_slice(&with_special_tokens(config, map).unwrap()).unwrap()
        };
        let older = with(Some(br#"{"model_max_length": 8, "eos_token": "<end>"}"#));
        assert_eq!((&older["model_max_length"], &older["eos_token"]["content"]), (&json!(8), &json!("</s>")));
        assert_eq!(with(None)["mask_token"], "<hide>");
        let newer = with(Some(br#"{"added_tokens_decoder": {}, "eos_token": "<end>"}"#));
        assert_eq!((&newer["eos_token"], &newer["mask_token"]), (&json!("<end>"), &Value::Null));
        let error = with_special_tokens(None, b"[]").unwrap_err().to_string();
        assert!(error.contains("special_tokens_map.json"), "{error}");
    }
}
