//! A row for fine-tuning: one of TRL's row types, whichever columns it was written with, and its one canonical JSON.

mod columns;
mod read;
mod turns;

use std::{fmt, str::FromStr};

use serde::Serialize;

use crate::Error;
pub use columns::is_row_column;
pub use turns::{Role, Turn, Turns};

/// One row. As JSON it has exactly the columns named here, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Example {
    /// A conversation, of which the assistant's turns are learned.
    Conversation {
        /// The turns.
        messages: Vec<Turn>,
    },
    /// A prompt, and what should follow it.
    PromptCompletion {
        /// What comes before.
        prompt: Turns,
        /// What is learned.
        completion: Turns,
    },
    /// A prompt with a better and a worse answer.
    Preference {
        /// What both answer.
        prompt: Turns,
        /// The better answer.
        chosen: Turns,
        /// The worse answer.
        rejected: Turns,
    },
    /// A prompt with one answer that was judged good or bad.
    Judged {
        /// What comes before.
        prompt: Turns,
        /// The answer.
        completion: Turns,
        /// Whether it is good.
        label: bool,
    },
    /// A prompt whose answers are rewarded.
    Prompt {
        /// What comes before.
        prompt: Turns,
        /// What a right answer holds, where that is known.
        #[serde(skip_serializing_if = "Option::is_none")]
        answer: Option<String>,
    },
}

/// Which type of row; all rows of a dataset have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowType {
    /// [`Example::Conversation`].
    Conversation,
    /// [`Example::PromptCompletion`].
    PromptCompletion,
    /// [`Example::Preference`].
    Preference,
    /// [`Example::Judged`].
    Judged,
    /// [`Example::Prompt`].
    Prompt,
}

impl RowType {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Conversation, Self::PromptCompletion, Self::Preference, Self::Judged, Self::Prompt];

    /// Its name in annotations.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Conversation => "conversation",
            Self::PromptCompletion => "prompt-completion",
            Self::Preference => "preference",
            Self::Judged => "judged",
            Self::Prompt => "prompt",
        }
    }
}

impl fmt::Display for RowType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for RowType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|row_type| row_type.as_str() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            Error::Invalid(format!("{name:?} is not a type of row: use one of {known}"))
        })
    }
}

impl Example {
    /// Which type of row it is.
    #[must_use]
    pub fn row_type(&self) -> RowType {
        match self {
            Self::Conversation { .. } => RowType::Conversation,
            Self::PromptCompletion { .. } => RowType::PromptCompletion,
            Self::Preference { .. } => RowType::Preference,
            Self::Judged { .. } => RowType::Judged,
            Self::Prompt { .. } => RowType::Prompt,
        }
    }

    /// The row as JSON: equal rows give equal bytes, and [`Example::from_json`] gives the row back.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and truth values are always JSON")
    }

    /// Every text of the row, to be cleaned. [`Example::check`] says whether the row is still of use afterwards.
    pub fn texts_mut(&mut self) -> Vec<&mut String> {
        match self {
            Self::Conversation { messages } => messages.iter_mut().map(|turn| &mut turn.content).collect(),
            Self::PromptCompletion { prompt, completion } | Self::Judged { prompt, completion, .. } => {
                [prompt, completion].into_iter().flat_map(Turns::texts_mut).collect()
            }
            Self::Preference { prompt, chosen, rejected } => {
                [prompt, chosen, rejected].into_iter().flat_map(Turns::texts_mut).collect()
            }
            Self::Prompt { prompt, answer } => prompt.texts_mut().into_iter().chain(answer).collect(),
        }
    }

    /// All texts of the row, a line feed between them, as rules about text see it.
    #[must_use]
    pub fn joined(&self) -> String {
        let mut row = self.clone();
        row.texts_mut().into_iter().map(|text| text.as_str()).collect::<Vec<_>>().join("\n")
    }

    /// Whether something can be learned from the row; the error names the column and the remedy.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Conversation { messages } => {
                let said = messages.iter().filter(|turn| turn.role == Role::Assistant);
                if said.clone().count() == 0 {
                    return Err("column messages: no turn is the assistant's, so nothing can be learned".to_owned());
                }
                match messages.iter().position(|turn| turn.role == Role::Assistant && turn.content.trim().is_empty()) {
                    Some(at) => Err(format!("column messages[{at}]: the assistant says nothing; leave the row out")),
                    None => Ok(()),
                }
            }
            Self::PromptCompletion { prompt, completion } | Self::Judged { prompt, completion, .. } => {
                prompt.check_prompt()?;
                completion.check_answer("completion")
            }
            Self::Preference { prompt, chosen, rejected } => {
                prompt.check_prompt()?;
                chosen.check_answer("chosen")?;
                rejected.check_answer("rejected")?;
                if chosen == rejected {
                    return Err("columns chosen and rejected are equal: no preference can be learned".to_owned());
                }
                Ok(())
            }
            Self::Prompt { prompt, .. } => {
                prompt.check_prompt()?;
                if prompt.is_blank() {
                    return Err("column prompt: it is empty".to_owned());
                }
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests;
