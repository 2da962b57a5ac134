//! A prompt and its completion for an encoder-decoder (T5): the source that it reads, and the text that it writes.

use super::{IGNORED, Lesson, Passage, Supervised};
use crate::{Error, Tokenizer};

/// A source, and the text to write of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sourced {
    /// Ids that the encoder reads.
    pub source: Vec<i64>,
    /// What the decoder reads, and what it should write.
    pub text: Supervised,
}

/// Makes sources and texts of rows, in the way of one encoder-decoder.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// The token that begins what the decoder reads.
    pub start: i64,
    /// The token after a source and after a text; absent takes the tokenizer's end of text.
    pub end: Option<u32>,
    /// Tokens kept of a source; of a longer one the end of its text is lost.
    pub max_source_length: usize,
    /// Tokens kept of a text; a longer one loses its end.
    pub max_target_length: usize,
}

impl Sources<'_> {
    /// The source and the text of a prompt with its completion, both of plain text. Each is what the tokenizer makes of it, and ends with
    /// the end of text: T5's tokenizer writes it, and others are given it.
    pub fn sequence(&self, lesson: &Lesson) -> Result<Sourced, Error> {
        let Lesson::PromptCompletion { prompt, completion } = lesson else {
            return Err(lesson.unlike("prompt with its completion"));
        };
        let (Passage::Text(prompt), Passage::Text(completion)) = (prompt, completion) else {
            let text = "prompt and completion should be plain text: an encoder-decoder has no chat template";
            return Err(Error::Invalid(text.to_owned()));
        };
        let text = self.text(completion)?;
        Ok(Sourced { source: self.source(prompt)?, text })
    }

    /// The source of a prompt.
    pub fn source(&self, prompt: &str) -> Result<Vec<i64>, Error> {
        let mut ids = self.ended(prompt)?;
        if ids.len() > self.max_source_length {
            let end = self.end().filter(|_| self.max_source_length > 0);
            ids.truncate(self.max_source_length - usize::from(end.is_some()));
            ids.extend(end);
        }
        if ids.is_empty() || (ids.len() == 1 && ids.first().copied() == self.end() && !prompt.is_empty()) {
            return Err(Error::NothingLearned(format!(
                "no token of its prompt is kept in a length of {}; raise the length, or leave the row out",
                self.max_source_length
            )));
        }
        Ok(ids.into_iter().map(i64::from).collect())
    }

    fn text(&self, completion: &str) -> Result<Supervised, Error> {
        let mut ids = self.ended(completion)?;
        let written = ids.iter().filter(|id| Some(**id) != self.end()).count();
        ids.truncate(self.max_target_length);
        if written == 0 || ids.is_empty() {
            return Err(Error::NothingLearned(
                "its completion has no token that is kept; leave the row out".to_owned(),
            ));
        }
        let targets: Vec<i64> = ids.into_iter().map(i64::from).collect();
        let inputs = std::iter::once(self.start).chain(targets[..targets.len() - 1].iter().copied()).collect();
        debug_assert!(targets.iter().all(|target| *target != IGNORED));
        Ok(Supervised { inputs, targets })
    }

    fn ended(&self, text: &str) -> Result<Vec<u32>, Error> {
        let mut ids = self.tokenizer.encode_beginning(text)?;
        ids.extend(self.end().filter(|end| ids.last() != Some(end)));
        Ok(ids)
    }

    fn end(&self) -> Option<u32> {
        self.end.or(self.tokenizer.end_of_text())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As T5's tokenizers are: `</s>` follows a text.
    fn tokenizer(processor: &str) -> Tokenizer {
        let json = format!(
            r#"{{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
            "pre_tokenizer":{{"type":"WhitespaceSplit"}},"post_processor":{processor},"decoder":null,
            "model":{{"type":"WordLevel","vocab":{{"<pad>":0,"</s>":1,"a":2,"b":3,"c":4}},"unk_token":"<pad>"}}}}"#
        );
        Tokenizer::from_bytes(json.as_bytes()).unwrap()
    }

    fn sources(tokenizer: &Tokenizer) -> Sources<'_> {
        Sources { tokenizer, start: 0, end: Some(1), max_source_length: 4, max_target_length: 3 }
    }

    fn lesson(prompt: &str, completion: &str) -> Lesson {
        serde_json::from_value(json!({"prompt": prompt, "completion": completion})).unwrap()
    }

    #[test]
    fn the_text_is_shifted_behind_the_start_and_both_end_with_the_end() {
        let template = r#"{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":0}},{"SpecialToken":{"id":"</s>","type_id":0}}],
            "pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],"special_tokens":{"</s>":{"id":"</s>","ids":[1],"tokens":["</s>"]}}}"#;
        for processor in ["null", template] {
            let tokenizer = tokenizer(processor);
            let made = sources(&tokenizer).sequence(&lesson("a b c", "c b")).unwrap();
            assert_eq!(made.source, [2, 3, 4, 1], "{processor}");
            assert_eq!((made.text.inputs, made.text.targets), (vec![0, 4, 3], vec![4, 3, 1]));
        }
    }

    #[test]
    fn a_source_that_is_cut_keeps_its_end_and_a_text_does_not() {
        let tokenizer = tokenizer("null");
        let made = sources(&tokenizer).sequence(&lesson("a b c a b", "c b a a")).unwrap();
        assert_eq!(made.source, [2, 3, 4, 1]);
        assert_eq!(made.text.targets, [4, 3, 2]);
    }

    #[test]
    fn what_leaves_nothing_to_learn_or_to_read_is_refused() {
        let tokenizer = tokenizer("null");
        let short = Sources { max_source_length: 1, ..sources(&tokenizer) };
        assert!(short.sequence(&lesson("a b", "c")).unwrap_err().to_string().contains("its prompt"));
        assert!(sources(&tokenizer).sequence(&lesson("a", " ")).unwrap_err().to_string().contains("its completion"));
        let turns = json!({"prompt": [{"role": "user", "content": "a"}], "completion": [{"role": "assistant", "content": "b"}]});
        let error = sources(&tokenizer).sequence(&serde_json::from_value(turns).unwrap()).unwrap_err().to_string();
        assert!(error.contains("plain text"), "{error}");
        let judged = json!({"prompt": "a", "completion": "b", "label": true});
        let error = sources(&tokenizer).sequence(&serde_json::from_value(judged).unwrap()).unwrap_err().to_string();
        assert!(error.contains("judged answer"), "{error}");
    }
}
