//! How well a model gives the answers of rows: the loss of an answer's tokens, and of two answers the one it prefers.
//!
//! Rows become sequences as in training, with the model's own tokenizer and chat template, and lie end to end in a batch.

use std::collections::BTreeMap;

use tidemill_dataset::{Document, RecordId};
use tidemill_models::Model;
use tidemill_text::{Lesson, Sourced, Sources, Supervised, Supervisor};

use crate::error::{Error, Result};
use crate::outcome::rounded;
use crate::sequences::{self, Loss, Sequence};

/// What is measured of one row.
#[derive(Debug)]
enum Measured {
    /// The loss of its answer.
    Answer(Supervised),
    /// The loss of the chosen answer, and whether the model prefers it to the rejected one.
    Pair([Supervised; 2]),
    /// The loss of the text that an encoder-decoder writes of a source.
    Sourced(Sourced),
    /// Nothing: a bad answer should not be likely.
    Nothing,
}

impl Measured {
    fn sequences(&self) -> Vec<Sequence<'_>> {
        let alone = |text| Sequence { source: &[], text };
        match self {
            Self::Answer(answer) => vec![alone(answer)],
            Self::Pair(pair) => pair.iter().map(alone).collect(),
            Self::Sourced(Sourced { source, text }) => vec![Sequence { source, text }],
            Self::Nothing => Vec::new(),
        }
    }
}

/// The rows of a split, ready to be scored.
#[derive(Debug)]
pub(crate) struct Rows(Vec<Measured>);

impl Rows {
    /// Reads rows; one that the model cannot read is named. Of each answer of a pair `longest` tokens are measured, 0 for all: late tokens
    /// are many, and tell little of which answer is the better one.
    pub(crate) fn read(documents: &[Document], supervisor: &Supervisor<'_>, longest: usize) -> Result<Self> {
        let longest = if longest == 0 { usize::MAX } else { longest };
        let read = |document: &Document| {
            let unfit = unfit(document.id);
            let lesson = lesson(document)?;
            let measured = match &lesson {
                Lesson::Conversation { .. } | Lesson::PromptCompletion { .. } => {
                    supervisor.sequence(&lesson).map(Measured::Answer)
                }
                Lesson::Preference { .. } => {
                    supervisor.pair(&lesson).map(|pair| Measured::Pair(pair.map(|answer| answer.first(longest))))
                }
                Lesson::Judged { label: false, .. } => Ok(Measured::Nothing),
                Lesson::Judged { .. } => supervisor.judged(&lesson).map(|(answer, _)| Measured::Answer(answer)),
                Lesson::Prompt { .. } => {
                    return Err(unfit("it is a prompt alone, of which nothing can be measured".to_owned()));
                }
            };
            measured.map_err(|error| unfit(error.to_string()))
        };
        documents.iter().map(read).collect::<Result<_>>().map(Self)
    }

    /// The same for an encoder-decoder, which writes the completions of prompts.
    pub(crate) fn read_sources(documents: &[Document], sources: &Sources<'_>) -> Result<Self> {
        let read = |document: &Document| {
            let made = sources.sequence(&lesson(document)?);
            made.map(Measured::Sourced).map_err(|error| unfit(document.id)(error.to_string()))
        };
        documents.iter().map(read).collect::<Result<_>>().map(Self)
    }

    fn sequences(&self) -> Vec<Sequence<'_>> {
        self.0.iter().flat_map(Measured::sequences).collect()
    }

    /// Tokens that are run through the model.
    pub(crate) fn tokens(&self) -> u64 {
        self.sequences().iter().map(|sequence| sequence.tokens() as u64).sum()
    }

    /// Scores all rows; `between` is asked after each batch, with the tokens done, whether to go on. Nothing comes back if it said no.
    pub(crate) async fn score(
        &self,
        model: &Model,
        digest: &str,
        between: impl FnMut(u64) -> bool,
    ) -> Result<Option<Vec<Loss>>> {
        sequences::score(model, digest, &self.sequences(), between).await
    }

    /// The figures, from the losses of the sequences in their order.
    pub(crate) fn metrics(&self, losses: &[Loss]) -> BTreeMap<String, f64> {
        let mut losses = losses.iter().copied();
        let mut next = || losses.next().unwrap_or_default();
        let (mut answers, mut pairs, mut right, mut margin) = (Loss::default(), 0u32, 0u32, 0.0);
        for row in &self.0 {
            let answer = match row {
                Measured::Nothing => continue,
                Measured::Answer(_) | Measured::Sourced(_) => next(),
                Measured::Pair(_) => {
                    let (chosen, rejected) = (next(), next());
                    let prefers = rejected.mean() - chosen.mean();
                    pairs += 1;
                    right += u32::from(prefers > 0.0);
                    margin += prefers;
                    chosen
                }
            };
            answers.add(answer);
        }
        let mut metrics = BTreeMap::new();
        if answers.tokens > 0 {
            metrics.insert("assistant_loss".to_owned(), rounded(answers.mean()));
        }
        if pairs > 0 {
            metrics.insert("preference_accuracy".to_owned(), rounded(f64::from(right) / f64::from(pairs)));
            metrics.insert("preference_margin".to_owned(), rounded(margin / f64::from(pairs)));
        }
        metrics
    }

    /// What a model prefers more than the one that it was trained from did, from the losses of both: DPO's implicit rewards
    /// (arXiv 2305.18290), by TRL's names.
    pub(crate) fn rewards(&self, own: &[Loss], base: &[Loss]) -> BTreeMap<String, f64> {
        let mut gained = own.iter().zip(base).map(|(own, base)| base.nats - own.nats);
        let mut next = || gained.next().unwrap_or_default();
        let mut margins = Vec::new();
        for row in &self.0 {
            match row {
                Measured::Nothing => {}
                Measured::Answer(_) | Measured::Sourced(_) => _ = next(),
                Measured::Pair(_) => margins.push(next() - next()),
            }
        }
        if margins.is_empty() {
            return BTreeMap::new();
        }
        let count = margins.len() as f64;
        let right = margins.iter().filter(|margin| **margin > 0.0).count() as f64;
        BTreeMap::from([
            ("rewards_accuracy".to_owned(), rounded(right / count)),
            ("log_ratio_margin".to_owned(), rounded(margins.iter().sum::<f64>() / count)),
        ])
    }
}

fn lesson(document: &Document) -> Result<Lesson> {
    serde_json::from_str(&document.text).map_err(|error| unfit(document.id)(error.to_string()))
}

fn unfit(id: RecordId) -> impl Fn(String) -> Error {
    move |detail| Error::Row { id, detail }
}

#[cfg(test)]
mod tests;
