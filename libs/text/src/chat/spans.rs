//! What the assistant says in a rendered conversation: as the template marks it, or else as the rest of the text after what a model
//! is given to continue.

use std::ops::Range;

use super::marks::{CLOSE, OPEN};
use super::{ChatTemplate, Message, TRAINING};
use crate::Error;

/// A rendered conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    /// The text.
    pub text: String,
    /// Bytes of the text that the assistant says, its end-of-turn tokens included; in order, and apart from each other.
    pub assistant: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// The text of a conversation to learn from, and what of it the assistant says. It is the text that [`ChatTemplate::render`] gives,
    /// but for templates that write earlier answers otherwise than the last one: here all are written like that.
    pub fn render_spans(&self, messages: &[Message], bos_token: &str, eos_token: &str) -> Result<Rendered, Error> {
        let tokens = [bos_token, eos_token];
        let text = self.render_as(TRAINING, messages, false, tokens, false)?;
        let assistant = if self.marked {
            self.marked_spans(messages, tokens, &text)?
        } else {
            self.derived(messages, tokens, &text)?
        };
        Ok(Rendered { text, assistant })
    }

    fn mismatch(&self, detail: impl Into<String>) -> Error {
        Error::TemplateMismatch { name: self.name.clone(), detail: detail.into() }
    }

    fn marked_spans(&self, messages: &[Message], tokens: [&str; 2], text: &str) -> Result<Vec<Range<usize>>, Error> {
        if let Some(at) = messages.iter().position(|message| message.content.contains([OPEN, CLOSE])) {
            return Err(Error::Invalid(format!(
                "messages[{at}] holds U+FDD0 or U+FDD1, which are no characters: remove them"
            )));
        }
        let marked = self.render_as(TRAINING, messages, false, tokens, true)?;
        let (mut plain, mut spans, mut open) = (String::with_capacity(marked.len()), Vec::new(), None);
        for character in marked.chars() {
            match (character, open) {
                (OPEN, None) => open = Some(plain.len()),
                (CLOSE, Some(begin)) => {
                    spans.push(begin..plain.len());
                    open = None;
                }
                (OPEN | CLOSE, _) => return Err(self.mismatch("nests its generation marks")),
                _ => plain.push(character),
            }
        }
        if open.is_some() || plain != text {
            return Err(self.mismatch("writes another text where its generation marks are kept"));
        }
        Ok(spans)
    }

    /// Each turn of the assistant begins where the model would, given what came before, and ends with the conversation so far.
    fn derived(&self, messages: &[Message], tokens: [&str; 2], text: &str) -> Result<Vec<Range<usize>>, Error> {
        let mut spans = Vec::new();
        for (at, _) in messages.iter().enumerate().filter(|(_, message)| message.role == "assistant") {
            let before = self.render_as(TRAINING, &messages[..at], true, tokens, false)?;
            let through = self.render_as(TRAINING, &messages[..=at], false, tokens, false)?;
            if !through.starts_with(&before) {
                return Err(self.mismatch(format!("does not let messages[{at}] continue its generation prompt")));
            }
            // Some templates close what ends with an answer, though it may go on.
            let through = match through.strip_suffix(tokens[1]) {
                Some(open) if !text.starts_with(&through) => open,
                _ => through.as_str(),
            };
            if !text.starts_with(through) {
                return Err(self.mismatch(format!("writes messages[{at}] in another way when more messages follow")));
            }
            spans.push(before.len()..through.len());
        }
        Ok(spans)
    }
}

#[cfg(test)]
mod tests;
