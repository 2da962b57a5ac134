//! Decoding while ids arrive: every piece given out is complete characters, and the pieces join to what `decode` gives.

use crate::{Error, Tokenizer};

/// Turns ids into text one by one.
#[derive(Debug)]
pub struct StreamDecoder {
    tokenizer: Tokenizer,
    /// Bytes of a character that is not complete yet; at most 3.
    pending: Vec<u8>,
    /// Only for schemes without bytes: the ids since the last safe cut, and how much of their text was given out.
    window: Vec<u32>,
    given: usize,
}

impl StreamDecoder {
    /// A decoder at the start of a text.
    #[must_use]
    pub fn new(tokenizer: &Tokenizer) -> Self {
        Self { tokenizer: tokenizer.clone(), pending: Vec::new(), window: Vec::new(), given: 0 }
    }

    /// The text that this id completes; may be empty.
    pub fn push(&mut self, id: u32) -> Result<String, Error> {
        self.tokenizer.check(&[id])?;
        if !self.tokenizer.has_bytes() {
            return self.push_window(id);
        }
        self.pending.extend_from_slice(self.tokenizer.bytes(id).unwrap_or_default());
        let mut text = String::new();
        let mut rest = self.pending.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    rest = after;
                    let Some(invalid) = error.error_len() else { break };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[invalid..];
                }
            }
        }
        self.pending = rest.to_vec();
        Ok(text)
    }

    /// What is left when no more ids come: an incomplete character becomes U+FFFD.
    pub fn finish(mut self) -> Result<String, Error> {
        if !self.tokenizer.has_bytes() {
            let text = self.tokenizer.decode(&self.window)?;
            return Ok(text.get(self.given..).unwrap_or_default().to_owned());
        }
        let pending = std::mem::take(&mut self.pending);
        Ok(String::from_utf8_lossy(&pending).into_owned())
    }

    /// Decodes a window of ids and gives out what is new. The window keeps some ids given out before, because such schemes
    /// treat the first word of a text apart.
    fn push_window(&mut self, id: u32) -> Result<String, Error> {
        const KEPT: usize = 8;
        self.window.push(id);
        let text = self.tokenizer.decode(&self.window)?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) && self.window.len() < 4 * KEPT {
            return Ok(String::new());
        }
        let piece = text.get(self.given..).unwrap_or_default().to_owned();
        self.given = text.len();
        if self.window.len() >= 4 * KEPT {
            self.window.drain(..self.window.len() - KEPT);
            self.given = self.tokenizer.decode(&self.window)?.len();
        }
        Ok(piece)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SPECIAL_TOKENS;

    fn stream(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
        let mut decoder = StreamDecoder::new(tokenizer);
        let mut pieces: Vec<String> = ids.iter().map(|&id| decoder.push(id).unwrap()).collect();
        pieces.push(decoder.finish().unwrap());
        pieces
    }

    #[test]
    fn pieces_are_complete_characters_and_join_to_the_text() {
        let tokenizer = Tokenizer::train_bpe(["plain ascii text"], 260, &SPECIAL_TOKENS).unwrap();
        let text = "naïve 日本語 \u{1F468}\u{200D}\u{1F469} café";
        let ids = tokenizer.encode(text).unwrap();
        assert!(ids.len() > text.chars().count(), "the test needs characters of several ids");
        let pieces = stream(&tokenizer, &ids);
        assert_eq!(pieces.concat(), text);
        assert!(!pieces.concat().contains(char::REPLACEMENT_CHARACTER));
    }

    #[test]
    fn random_ids_join_to_what_decode_gives() {
        let tokenizer = Tokenizer::train_bpe(["some text, some words"], 270, &SPECIAL_TOKENS).unwrap();
        let mut state = 1u64;
        for length in 0..300 {
            let ids: Vec<u32> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    ((state >> 33) % tokenizer.vocabulary_size() as u64) as u32
                })
                .collect();
            assert_eq!(stream(&tokenizer, &ids).concat(), tokenizer.decode(&ids).unwrap());
        }
    }

    #[test]
    fn an_id_beyond_the_vocabulary_is_an_error() {
        let tokenizer = Tokenizer::train_bpe(["x"], 260, &SPECIAL_TOKENS).unwrap();
        assert!(StreamDecoder::new(&tokenizer).push(99_999).unwrap_err().to_string().contains("99999"));
    }

    #[test]
    fn other_schemes_stream_too() {
        let json = r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
            "pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true},"post_processor":null,
            "decoder":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true},
            "model":{"type":"WordLevel","vocab":{"▁a":0,"▁b":1,"▁c":2},"unk_token":"▁c"}}"#;
        let tokenizer = Tokenizer::from_bytes(json.as_bytes()).unwrap();
        let ids = tokenizer.encode(&"a b a c ".repeat(30)).unwrap();
        assert_eq!(stream(&tokenizer, &ids).concat(), tokenizer.decode(&ids).unwrap());
    }
}
