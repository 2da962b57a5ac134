//! What a batch teaches, by method. Definitions and normalisers are TRL's, so that its losses can be compared number by number.

mod distilled;
mod fit;
mod grouped;
mod judged;
mod preference;

use std::collections::BTreeMap;

use serde::Serialize;
use tch::{Kind, Tensor, no_grad};
use tidemill_models::Model;

use super::{
    Precision, Result,
    loader::{Laid, MicroBatch},
};

pub use grouped::{Grouped, GroupedLoss};

/// How rows or tokens teach.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Cross-entropy of every token of a stream.
    Language,
    /// Cross-entropy of answers.
    Supervised {
        /// And of prompts.
        learn_prompts: bool,
    },
    /// DPO and its kin, on pairs.
    Preference {
        /// Strength of the pull to the reference.
        beta: f64,
        /// The loss on the difference of log-ratios.
        loss: PreferenceLoss,
        /// Share of pairs labelled the wrong way round.
        label_smoothing: f64,
    },
    /// KTO, on single judged answers.
    Judged {
        /// Strength of the pull to the reference.
        beta: f64,
        /// Weight of good answers.
        desirable_weight: f64,
        /// Weight of bad answers.
        undesirable_weight: f64,
    },
    /// GRPO, on answers that the model draws.
    Grouped(Grouped),
    /// Cross-entropy of tokens that are hidden from an encoder.
    MaskedLanguage {
        /// Share of tokens to guess.
        mask_probability: f64,
    },
    /// Cross-entropy of texts that are written of sources.
    SequenceToSequence {
        /// Tokens kept of a text; 0 keeps as many as of a source.
        max_target_length: usize,
    },
}

/// A loss on the difference of log-ratios.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PreferenceLoss {
    /// -log sigmoid (arXiv 2305.18290).
    Sigmoid,
    /// Squares, over mean log-probabilities (arXiv 2310.12036).
    Ipo,
    /// Hinge (arXiv 2305.10425).
    Hinge,
}

/// How a teacher is followed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Distillation {
    /// What both models' logits are divided by.
    pub temperature: f64,
    /// Share of the teacher in the loss; the rest is the data's own tokens.
    pub weight: f64,
}

impl Method {
    /// Whether it compares with the model as it was.
    pub fn needs_reference(self) -> bool {
        match self {
            Self::Preference { .. } | Self::Judged { .. } => true,
            Self::Grouped(constants) => constants.beta > 0.0,
            _ => false,
        }
    }

    /// Updates with the batches of one step.
    pub(super) fn iterations(self) -> u64 {
        if let Self::Grouped(constants) = self { constants.num_iterations as u64 } else { 1 }
    }

    /// What the losses of a batch are divided by, together with those of all batches of a step: tokens, pairs or answers.
    pub(super) fn weight(self, batch: &MicroBatch) -> usize {
        match (self, &batch.documents) {
            (Self::Preference { .. }, Some(laid)) => laid.supervised.len() / 2,
            (Self::Judged { .. }, Some(laid)) => laid.supervised.len(),
            (Self::Grouped(constants), Some(laid)) => constants.weight(batch, laid),
            _ => batch.supervised,
        }
    }
}

/// The model, and what it was.
pub(super) struct Learner<'a> {
    pub(super) model: &'a Model,
    /// Absent where the model without its adapter is the reference.
    pub(super) reference: Option<&'a Model>,
    pub(super) method: Method,
    /// The teacher, for methods that learn tokens.
    pub(super) teacher: Option<(&'a Model, Distillation)>,
    pub(super) precision: Precision,
    pub(super) z_loss: f64,
}

/// What a batch came to: a loss to be divided by the step's weight, and sums of figures over its pairs or answers.
pub(super) struct Outcome {
    pub(super) loss: Tensor,
    pub(super) figures: BTreeMap<&'static str, (f64, f64)>,
}

impl Learner<'_> {
    pub(super) fn outcome(&self, batch: &MicroBatch) -> Result<Outcome> {
        if let Some((teacher, constants)) = self.teacher {
            return distilled::outcome(self, teacher, batch, constants);
        }
        match (self.method, &batch.documents) {
            (Method::Preference { beta, loss, label_smoothing }, Some(laid)) => {
                preference::outcome(self, batch, laid, beta, loss, label_smoothing)
            }
            (Method::Judged { beta, desirable_weight, undesirable_weight }, Some(laid)) => {
                judged::outcome(self, batch, laid, beta, [undesirable_weight, desirable_weight])
            }
            (Method::Grouped(constants), Some(laid @ Laid { drawn: Some(drawn), .. })) => {
                grouped::outcome(self, batch, laid, drawn, constants)
            }
            _ => {
                let sum = self.in_precision(|| match batch.pairs() {
                    Some(pairs) => self.model.pairs_loss_sum(pairs, &batch.targets_bt, self.z_loss),
                    None => self.model.loss_sum(&batch.inputs_bt, &batch.targets_bt, batch.attention(), self.z_loss),
                })?;
                Ok(Outcome { loss: sum.f_to_kind(Kind::Float)?, figures: BTreeMap::new() })
            }
        }
    }

    /// Log-probabilities of each token's target, [time]; of answers that were drawn, in the distribution that they were drawn from.
    pub(super) fn log_probabilities(&self, model: &Model, batch: &MicroBatch) -> Result<Tensor> {
        let temperature = if let Method::Grouped(constants) = self.method { constants.temperature } else { 1.0 };
        let losses = self.in_precision(|| {
            model.token_losses_at(&batch.inputs_bt, &batch.targets_bt, batch.attention(), temperature)
        })?;
        Ok(losses.f_neg()?)
    }

    /// The same of the reference, without gradients.
    fn reference(&self, batch: &MicroBatch) -> Result<Tensor> {
        no_grad(|| match self.reference {
            Some(reference) => self.log_probabilities(reference, batch),
            None => self.model.without_adapter(|| self.log_probabilities(self.model, batch)),
        })
    }

    fn in_precision(&self, body: impl FnOnce() -> tidemill_models::Result<Tensor>) -> Result<Tensor> {
        Ok(self.precision.run(self.model.device(), body)??)
    }
}
