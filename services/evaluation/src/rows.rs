//! How well a model gives the answers of rows: the loss of an answer's tokens, and of two answers the one it prefers.
//!
//! Rows become sequences as in training, with the model's own tokenizer and chat template, and lie end to end in a batch.

use std::collections::BTreeMap;

use tch::Tensor;
use tidemill_dataset::Document;
use tidemill_models::{Attention, Documents, Model};
use tidemill_text::{Lesson, Supervised, Supervisor};

use crate::error::{Error, Result};
use crate::outcome::rounded;

/// Tokens of a batch, about.
const BATCH_TOKENS: usize = 4096;

/// What is measured of one row.
#[derive(Debug)]
enum Measured {
    /// The loss of its answer.
    Answer(Supervised),
    /// The loss of the chosen answer, and whether the model prefers it to the rejected one.
    Pair([Supervised; 2]),
    /// Nothing: a bad answer should not be likely.
    Nothing,
}

impl Measured {
    fn sequences(&self) -> &[Supervised] {
        match self {
            Self::Answer(answer) => std::slice::from_ref(answer),
            Self::Pair(pair) => pair,
            Self::Nothing => &[],
        }
    }
}

/// The rows of a split, ready to be scored.
#[derive(Debug)]
pub(crate) struct Rows(Vec<Measured>);

impl Rows {
    /// Reads rows; one that the model cannot read is named.
    pub(crate) fn read(documents: &[Document], supervisor: &Supervisor<'_>) -> Result<Self> {
        let read = |document: &Document| {
            let unfit = |detail: String| Error::Row { id: document.id, detail };
            let lesson = serde_json::from_str(&document.text).map_err(|error| unfit(error.to_string()))?;
            let measured = match &lesson {
                Lesson::Conversation { .. } | Lesson::PromptCompletion { .. } => {
                    supervisor.sequence(&lesson).map(Measured::Answer)
                }
                Lesson::Preference { .. } => supervisor.pair(&lesson).map(Measured::Pair),
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

    fn sequences(&self) -> Vec<&Supervised> {
        self.0.iter().flat_map(Measured::sequences).collect()
    }

    /// Tokens that are run through the model.
    pub(crate) fn tokens(&self) -> u64 {
        self.sequences().iter().map(|sequence| sequence.inputs.len() as u64).sum()
    }

    /// Scores all rows batch after batch; `between` is asked after each, with the tokens done, whether to go on. Nothing comes back if it
    /// said no.
    pub(crate) async fn score(
        &self,
        model: &Model,
        digest: &str,
        mut between: impl FnMut(u64) -> bool,
    ) -> Result<Option<BTreeMap<String, f64>>> {
        let sequences = self.sequences();
        let (mut losses, mut done) = (Vec::with_capacity(sequences.len()), 0);
        for batch in batches(&sequences) {
            let failed = |source| Error::Model { digest: digest.to_owned(), source };
            losses.extend(batch_losses(model, batch).map_err(failed)?);
            if losses.iter().any(|loss| !loss.nats.is_finite()) {
                return Err(Error::NotFinite(digest.to_owned()));
            }
            done += batch.iter().map(|sequence| sequence.inputs.len() as u64).sum::<u64>();
            // Signals are seen while we wait.
            tokio::task::yield_now().await;
            if !between(done) {
                return Ok(None);
            }
        }
        Ok(Some(self.metrics(&losses)))
    }

    /// The figures, from the losses of the sequences in their order.
    fn metrics(&self, losses: &[Loss]) -> BTreeMap<String, f64> {
        let mut losses = losses.iter().copied();
        let mut next = || losses.next().unwrap_or_default();
        let (mut answers, mut pairs, mut right, mut margin) = (Loss::default(), 0u32, 0u32, 0.0);
        for row in &self.0 {
            let answer = match row {
                Measured::Nothing => continue,
                Measured::Answer(_) => next(),
                Measured::Pair(_) => {
                    let (chosen, rejected) = (next(), next());
                    let prefers = rejected.mean() - chosen.mean();
                    pairs += 1;
                    right += u32::from(prefers > 0.0);
                    margin += prefers;
                    chosen
                }
            };
            answers.nats += answer.nats;
            answers.tokens += answer.tokens;
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
}

/// Negative log-likelihood of an answer.
#[derive(Clone, Copy, Debug, Default)]
struct Loss {
    nats: f64,
    tokens: u64,
}

impl Loss {
    fn mean(self) -> f64 {
        self.nats / self.tokens as f64
    }
}

/// Sequences in their order, as many a batch as fit.
fn batches<'a, 'b>(sequences: &'b [&'a Supervised]) -> impl Iterator<Item = &'b [&'a Supervised]> {
    let mut rest = sequences;
    std::iter::from_fn(move || {
        let mut tokens = 0;
        let fitting = rest.iter().take_while(|sequence| {
            tokens += sequence.inputs.len();
            tokens <= BATCH_TOKENS
        });
        // One that is longer than a batch is one of its own.
        let count = fitting.count().max(1).min(rest.len());
        let (batch, after) = rest.split_at(count);
        rest = after;
        (count > 0).then_some(batch)
    })
}

fn batch_losses(model: &Model, batch: &[&Supervised]) -> tidemill_models::Result<Vec<Loss>> {
    let lengths: Vec<usize> = batch.iter().map(|sequence| sequence.inputs.len()).collect();
    let documents = Documents::new(lengths.iter().map(|length| *length as i64).collect(), model.device())?;
    let place = |values: Vec<i64>| -> tidemill_models::Result<Tensor> {
        Ok(Tensor::f_from_slice(&values)?.f_unsqueeze(0)?.f_to_device(model.device())?)
    };
    let inputs = place(batch.iter().flat_map(|sequence| sequence.inputs.iter().copied()).collect())?;
    let targets = place(batch.iter().flat_map(|sequence| sequence.targets.iter().copied()).collect())?;
    let losses = model.token_losses(&inputs, &targets, Attention::Documents(&documents))?;
    let losses = Vec::<f32>::try_from(&losses.f_to_device(tch::Device::Cpu)?)?;
    let mut rest = losses.as_slice();
    let of = |sequence: &&Supervised| {
        let (own, after) = rest.split_at(sequence.inputs.len());
        rest = after;
        Loss { nats: own.iter().map(|loss| f64::from(*loss)).sum(), tokens: sequence.learned() as u64 }
    };
    Ok(batch.iter().map(of).collect())
}

#[cfg(test)]
mod tests;
