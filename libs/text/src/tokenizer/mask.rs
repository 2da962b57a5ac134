//! The token that hides others from an encoder.

use serde_json::Value;

use super::Tokenizer;
use crate::Error;

/// What it is called where no file names it.
const MASK_NAMES: [&str; 2] = ["[MASK]", "<mask>"];

impl Tokenizer {
    /// Its id: of the token that `tokenizer_config.json` names, else of a special token of the usual name.
    ///
    /// # Errors
    /// There is none, or the file names a token that the vocabulary lacks.
    pub fn mask_token(&self, tokenizer_config: Option<&[u8]>) -> Result<u32, Error> {
        let config: Value = match tokenizer_config {
            Some(bytes) => serde_json::from_slice(bytes)
                .map_err(|error| Error::NoMaskToken(format!(", and tokenizer_config.json is not JSON ({error})")))?,
            None => Value::Null,
        };
        let named = &config["mask_token"];
        if let Some(name) = named.as_str().or_else(|| named["content"].as_str()) {
            let unknown = || Error::NoMaskToken(format!(" {name:?}, which tokenizer_config.json names"));
            return self.token_id(name).ok_or_else(unknown);
        }
        let usual = MASK_NAMES.iter().filter_map(|name| self.token_id(name)).find(|id| self.is_special(*id));
        usual.ok_or_else(|| Error::NoMaskToken(String::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_is_what_the_files_say_or_a_special_token_of_the_usual_name() {
        let tokenizer = Tokenizer::train_bpe(["[MASK] x"], 264, &["[MASK]", "<hide>"]).unwrap();
        assert_eq!(tokenizer.mask_token(None).unwrap(), 0);
        assert_eq!(tokenizer.mask_token(Some(br#"{"mask_token": "<hide>"}"#)).unwrap(), 1);
        assert_eq!(tokenizer.mask_token(Some(br#"{"mask_token": {"content": "<hide>"}}"#)).unwrap(), 1);
        assert_eq!(tokenizer.mask_token(Some(br#"{"mask_token": null}"#)).unwrap(), 0);
    }

    #[test]
    fn a_mask_that_is_missing_is_an_error_with_a_remedy() {
        let tokenizer = Tokenizer::train_bpe(["x"], 264, &[]).unwrap();
        assert!(tokenizer.mask_token(None).unwrap_err().to_string().contains("[MASK]"));
        let named = tokenizer.mask_token(Some(br#"{"mask_token": "<gone>"}"#)).unwrap_err().to_string();
        assert!(named.contains("<gone>") && named.contains("tokenizer_config.json"), "{named}");
        assert!(tokenizer.mask_token(Some(b"{")).is_err());
    }
}
