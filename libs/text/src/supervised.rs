//! A row of a prepared dataset as what a model learns from it: its ids, and at each place the token to predict, or none.
//! Training and evaluation both call this, so that what is measured is what was learned.

mod source;

use serde::Deserialize;

use crate::{ChatFormat, Error, Message, Tokenizer};

pub use source::{Sourced, Sources};

/// The target of a place where nothing is learned.
pub const IGNORED: i64 = -100;

/// A row of a prepared dataset, read from its canonical JSON by serde.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum Lesson {
    /// A conversation.
    Conversation {
        /// Its turns.
        messages: Vec<Message>,
    },
    /// A prompt and its completion.
    PromptCompletion {
        /// What comes before.
        prompt: Passage,
        /// What is learned.
        completion: Passage,
    },
    /// A prompt with a better and a worse answer.
    Preference {
        /// What both answer.
        prompt: Passage,
        /// The better answer.
        chosen: Passage,
        /// The worse answer.
        rejected: Passage,
    },
    /// A prompt with an answer judged good or bad.
    Judged {
        /// What comes before.
        prompt: Passage,
        /// The answer.
        completion: Passage,
        /// Whether it is good.
        label: bool,
    },
    /// A prompt whose answers are rewarded.
    Prompt {
        /// What comes before.
        prompt: Passage,
        /// What a right answer holds, where that is known.
        answer: Option<String>,
    },
}

/// A prompt or an answer.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Passage {
    /// Plain text, which no template touches.
    Text(String),
    /// Turns, which the model's template renders.
    Messages(Vec<Message>),
}

impl Passage {
    /// A text, or the last of turns.
    fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Messages(messages) => messages.last().map(|message| message.content.clone()),
        }
    }
}

/// A sequence to learn: a model that reads `inputs` should predict `targets`, place by place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Supervised {
    /// Ids, without the last one of the row.
    pub inputs: Vec<i64>,
    /// The id after each, or [`IGNORED`]. As long as the inputs, with at least one id among them.
    pub targets: Vec<i64>,
}

impl Supervised {
    /// How many tokens are learned.
    #[must_use]
    pub fn learned(&self) -> usize {
        self.targets.iter().filter(|target| **target != IGNORED).count()
    }

    /// The same with the first `most` tokens of its answer alone, at least one: what comes after them is left out.
    #[must_use]
    pub fn first(mut self, most: usize) -> Self {
        let begin = self.targets.iter().take_while(|target| **target == IGNORED).count();
        let kept = begin.saturating_add(most.max(1));
        self.inputs.truncate(kept);
        self.targets.truncate(kept);
        self
    }
}

/// A prompt whose answers are rewarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The ids that an answer continues.
    pub ids: Vec<u32>,
    /// What a right answer says, where that is known.
    pub answer: Option<String>,
}

/// Makes sequences of rows, in the way of one model.
#[derive(Debug, Clone, Copy)]
pub struct Supervisor<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// How its conversations are written.
    pub chat: &'a ChatFormat,
    /// Tokens kept of a row, the last target included; a longer one loses its end.
    pub max_length: usize,
    /// Learns prompts too.
    pub learn_prompts: bool,
}

impl Supervisor<'_> {
    /// The sequence of a conversation, of which the assistant's turns are learned, or of a prompt and its completion.
    pub fn sequence(&self, lesson: &Lesson) -> Result<Supervised, Error> {
        match lesson {
            Lesson::Conversation { messages } => self.conversation(messages),
            Lesson::PromptCompletion { prompt, completion } => self.completion(prompt, completion),
            other => Err(other.unlike("conversation or a prompt with its completion")),
        }
    }

    /// The sequences of a preference: the chosen answer's, then the rejected one's.
    pub fn pair(&self, lesson: &Lesson) -> Result<[Supervised; 2], Error> {
        match lesson {
            Lesson::Preference { prompt, chosen, rejected } => {
                Ok([self.completion(prompt, chosen)?, self.completion(prompt, rejected)?])
            }
            other => Err(other.unlike("preference")),
        }
    }

    /// The sequence of a judged answer, and whether it is good.
    pub fn judged(&self, lesson: &Lesson) -> Result<(Supervised, bool), Error> {
        match lesson {
            Lesson::Judged { prompt, completion, label } => Ok((self.completion(prompt, completion)?, *label)),
            other => Err(other.unlike("judged answer")),
        }
    }

    /// The prompt of a row whose answers are rewarded: of a prompt, of a prompt and its completion, or of a conversation what comes before
    /// the assistant's last turn. The completion, or that turn, is what a right answer says.
    pub fn question(&self, lesson: &Lesson) -> Result<Question, Error> {
        let (ids, answer) = match lesson {
            Lesson::Prompt { prompt, answer } => (self.prompt(prompt)?, answer.clone()),
            Lesson::PromptCompletion { prompt, completion } => (self.prompt(prompt)?, completion.text()),
            Lesson::Conversation { messages } => {
                let last = messages.iter().rposition(|message| message.role == "assistant").filter(|last| *last > 0);
                let Some(last) = last else {
                    return Err(Error::NothingLearned("no turn of the assistant answers another one".to_owned()));
                };
                let asked = self.chat.render(&messages[..last], true)?;
                (self.tokenizer.encode_template(&asked)?, Some(messages[last].content.clone()))
            }
            other => return Err(other.unlike("prompt, a prompt with its completion or a conversation")),
        };
        if ids.is_empty() {
            return Err(Error::NothingLearned("its prompt is empty".to_owned()));
        }
        Ok(Question { ids, answer })
    }

    /// The ids that a model continues to answer a prompt.
    pub fn prompt(&self, prompt: &Passage) -> Result<Vec<u32>, Error> {
        match prompt {
            Passage::Text(text) => self.tokenizer.encode_beginning(text),
            Passage::Messages(messages) => self.tokenizer.encode_template(&self.chat.render(messages, true)?),
        }
    }

    /// The sequence of a prompt and an answer to it. As TRL does, the answer is learned from where the ids of both together part
    /// from those of the prompt alone.
    pub fn completion(&self, prompt: &Passage, completion: &Passage) -> Result<Supervised, Error> {
        let asked = self.prompt(prompt)?;
        let whole = match (prompt, completion) {
            (Passage::Text(prompt), Passage::Text(completion)) => {
                let mut ids = self.tokenizer.encode_beginning(&format!("{prompt}{completion}"))?;
                if let Some(end) = self.end_of_answer().filter(|end| ids.last() != Some(end)) {
                    ids.push(end);
                }
                ids
            }
            (Passage::Messages(prompt), Passage::Messages(completion)) => {
                let begin = self.chat.render(prompt, true)?;
                let text = self.chat.render(&[prompt.as_slice(), completion].concat(), false)?;
                if !text.starts_with(&begin) {
                    let name =
                        self.chat.template.as_ref().map_or_else(String::new, |template| template.name().to_owned());
                    let detail = "does not let an answer continue its generation prompt".to_owned();
                    return Err(Error::TemplateMismatch { name, detail });
                }
                self.tokenizer.encode_template(&text)?
            }
            _ => {
                return Err(Error::Invalid("prompt and answer should both be text, or both lists of turns".to_owned()));
            }
        };
        let begin = asked.iter().zip(&whole).take_while(|(a, b)| a == b).count();
        let learned: Vec<bool> = (0..whole.len()).map(|at| at >= begin).collect();
        self.learn(&whole, &learned)
    }

    fn conversation(&self, messages: &[Message]) -> Result<Supervised, Error> {
        let rendered = self.chat.render_spans(messages)?;
        let (ids, learned) = self.tokenizer.encode_template_spans(&rendered.text, &rendered.assistant)?;
        self.learn(&ids, &learned)
    }

    /// What ends an answer of plain text.
    fn end_of_answer(&self) -> Option<u32> {
        self.tokenizer.token_id(&self.chat.eos_token).or(self.tokenizer.end_of_text())
    }

    fn learn(&self, ids: &[u32], learned: &[bool]) -> Result<Supervised, Error> {
        // Nothing predicts the first token.
        let Some(first) = (1..ids.len()).find(|at| learned[*at]) else {
            return Err(Error::NothingLearned("no token of it is an answer; look at the chat template".to_owned()));
        };
        let kept = ids.len().min(self.max_length);
        if first >= kept {
            return Err(Error::NothingLearned(format!(
                "its answer begins after {first} tokens, and only {kept} are kept; raise the length, or leave the row out"
            )));
        }
        let target = |at: usize| if self.learn_prompts || learned[at] { i64::from(ids[at]) } else { IGNORED };
        Ok(Supervised {
            inputs: ids[..kept - 1].iter().map(|id| i64::from(*id)).collect(),
            targets: (1..kept).map(target).collect(),
        })
    }
}

impl Lesson {
    fn unlike(&self, wanted: &'static str) -> Error {
        let found = match self {
            Self::Conversation { .. } => "conversation",
            Self::PromptCompletion { .. } => "prompt with its completion",
            Self::Preference { .. } => "preference",
            Self::Judged { .. } => "judged answer",
            Self::Prompt { .. } => "prompt alone",
        };
        Error::OtherRow { found, wanted }
    }
}

#[cfg(test)]
mod tests;
