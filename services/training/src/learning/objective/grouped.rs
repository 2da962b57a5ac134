//! Group-relative policy optimisation (arXiv 2402.03300) on answers that the model drew, with TRL's losses and normalisers.

use serde::Serialize;
use tch::{Kind, Tensor};
use tidemill_models::{IGNORED, sampling::Sampling};

use super::{Learner, Outcome};
use crate::learning::{
    Result, ScaleRewards,
    drawn::Drawn,
    loader::{Laid, MicroBatch},
};

/// How answers are drawn and learned.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Grouped {
    /// Answers drawn to each prompt.
    pub num_generations: usize,
    /// Most tokens of an answer.
    pub max_completion_length: usize,
    /// What logits are divided by.
    pub temperature: f64,
    /// Answers are drawn from the smallest set of likeliest tokens whose probability reaches this.
    pub top_p: f64,
    /// Strength of the pull to the reference; 0 leaves it out.
    pub beta: f64,
    /// How far from 1 the ratio to the model that drew an answer is rewarded.
    pub epsilon: f64,
    /// Updates with the answers of a step.
    pub num_iterations: usize,
    /// How the losses of tokens become that of a step.
    pub loss: GroupedLoss,
    /// What an answer's lead over its group is divided by.
    pub scale_rewards: ScaleRewards,
}

/// How the losses of tokens become that of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GroupedLoss {
    /// The mean over all tokens of the step (arXiv 2503.14476).
    Dapo,
    /// The mean over answers of the means over their tokens.
    Grpo,
    /// The mean over micro-batches of the means over their tokens.
    Bnpo,
    /// The sum over tokens, over answers times their greatest length (arXiv 2503.20783).
    DrGrpo,
}

impl Grouped {
    /// How tokens are drawn while learning.
    pub(in crate::learning) fn sampling(&self) -> Sampling {
        Sampling { temperature: self.temperature, top_k: 0, top_p: self.top_p }
    }

    /// What the losses of a batch are divided by.
    pub(super) fn weight(&self, batch: &MicroBatch, laid: &Laid) -> usize {
        match self.loss {
            GroupedLoss::Dapo => batch.supervised,
            GroupedLoss::Grpo => laid.supervised.len(),
            GroupedLoss::Bnpo => 1,
            GroupedLoss::DrGrpo => laid.supervised.len() * self.max_completion_length,
        }
    }
}

pub(super) fn outcome(
    learner: &Learner<'_>,
    batch: &MicroBatch,
    laid: &Laid,
    drawn: &Drawn,
    constants: Grouped,
) -> Result<Outcome> {
    let policy = learner.log_probabilities(learner.model, batch)?;
    let before = match &drawn.before {
        Some(before) => before.shallow_clone(),
        None => policy.f_detach()?,
    };
    // All of them [time], and of answers alone.
    let learned = batch.targets_bt.f_flatten(0, 1)?.f_ne(IGNORED)?.f_to_kind(Kind::Float)?;
    let advantages = drawn.advantages.f_index_select(0, &laid.owners)?;
    let ratios = policy.f_sub(&before)?.f_exp()?;
    let near = ratios.f_clamp(1.0 - constants.epsilon, 1.0 + constants.epsilon)?;
    let (plain, clipped) = (ratios.f_mul(&advantages)?, near.f_mul(&advantages)?);
    let mut losses = plain.f_minimum(&clipped)?.f_neg()?;
    let mut figures = drawn.figures.clone();
    let count = batch.supervised as f64;
    let sum = |x: &Tensor| -> Result<(f64, f64)> {
        Ok((x.f_detach()?.f_mul(&learned)?.f_sum(Kind::Double)?.f_double_value(&[])?, count))
    };
    if constants.beta > 0.0 {
        let apart = learner.reference(batch)?.f_sub(&policy)?;
        // Times the ratio, which makes the gradient that of the reverse divergence even where the ratio is 1 (arXiv 2512.02556).
        let divergence = apart.f_exp()?.f_sub(&apart)?.f_sub_scalar(1.0)?.f_mul(&ratios)?;
        losses = losses.f_add(&divergence.f_mul_scalar(constants.beta)?)?;
        figures.insert("kl", sum(&divergence)?);
    }
    figures.insert("clip_ratio", sum(&clipped.f_lt_tensor(&plain)?.f_to_kind(Kind::Float)?)?);
    // Of tokens that were drawn the mean surprise is an estimate of the entropy, and costs nothing.
    figures.insert("entropy", sum(&before.f_neg()?)?);
    let losses = losses.f_mul(&learned)?;
    let loss = match constants.loss {
        GroupedLoss::Dapo | GroupedLoss::DrGrpo => losses.f_sum(Kind::Float)?,
        GroupedLoss::Grpo => laid.sums(&losses)?.f_div(&laid.counts(&losses)?)?.f_sum(Kind::Float)?,
        GroupedLoss::Bnpo => losses.f_sum(Kind::Float)?.f_div_scalar(count)?,
    };
    Ok(Outcome { loss, figures })
}
