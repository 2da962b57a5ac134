//! Ids of rendered templates of which some parts are learned, and of texts that a model continues.

use std::ops::Range;

use super::{Kind, Tokenizer};
use crate::Error;

impl Tokenizer {
    /// Ids of a rendered template as [`Tokenizer::encode_template`] gives them, and of each whether it lies wholly inside one of the
    /// spans: ranges of bytes, in order and apart.
    pub fn encode_template_spans(&self, text: &str, spans: &[Range<usize>]) -> Result<(Vec<u32>, Vec<bool>), Error> {
        let inside = |begin: usize, end: usize| {
            let next = spans.partition_point(|span| span.end < end);
            begin < end && spans.get(next).is_some_and(|span| span.start <= begin && end <= span.end)
        };
        let no_special = self.inner.special_ids.is_empty();
        if matches!(self.inner.kind, Kind::Characters { .. }) && (no_special || !text.contains("<|")) {
            let places = text.char_indices().map(|(at, character)| inside(at, at + character.len_utf8()));
            return Ok((self.encode(text)?, places.collect()));
        }
        let tokenizer = if no_special { &self.inner.plain } else { &self.inner.special };
        let encoding = tokenizer.encode(text, false).map_err(|e| Error::Failed(e.to_string()))?;
        let places = encoding.get_offsets().iter().map(|&(begin, end)| inside(begin, end));
        Ok((encoding.get_ids().to_vec(), places.collect()))
    }

    /// Ids of a text as a model of this tokenizer continues one: after the token that the tokenizer puts first, if it does.
    /// What looks like a special token is plain text.
    pub fn encode_beginning(&self, text: &str) -> Result<Vec<u32>, Error> {
        match self.inner.kind {
            // These put nothing before a text.
            Kind::ByteLevel(_) | Kind::Characters { .. } => self.encode(text),
            Kind::Other => {
                let encoding = self.inner.plain.encode_fast(text, true).map_err(|e| Error::Failed(e.to_string()))?;
                Ok(encoding.get_ids().to_vec())
            }
        }
    }
}
