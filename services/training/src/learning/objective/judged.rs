//! Kahneman-Tversky optimisation (arXiv 2402.01306) on single judged answers.
//!
//! How far the model is from the reference on the whole is estimated on prompts with the answers of other rows, as the paper does.

use std::collections::BTreeMap;

use tch::{Kind, Tensor, no_grad};

use super::{Learner, Outcome};
use crate::learning::{
    Error, Result,
    loader::{Laid, MicroBatch},
};

/// `weights`: of bad and of good answers.
pub(super) fn outcome(
    learner: &Learner<'_>,
    batch: &MicroBatch,
    laid: &Laid,
    beta: f64,
    weights: [f64; 2],
) -> Result<Outcome> {
    let policy = laid.sums(&learner.log_probabilities(learner.model, batch)?)?;
    let ratios = policy.f_sub(&laid.sums(&learner.reference(batch)?)?)?;
    let divergence = divergence(learner, laid)?;
    let good = Tensor::f_from_slice(&laid.labels)?.f_to_device(ratios.device())?;
    let above = ratios.f_sub_scalar(divergence)?;
    let signed = above.f_where_self(&good, &above.f_neg()?)?.f_mul_scalar(beta)?;
    let weights: Vec<f32> = laid.labels.iter().map(|good| weights[usize::from(*good)] as f32).collect();
    let weights = Tensor::f_from_slice(&weights)?.f_to_device(ratios.device())?;
    let losses = signed.f_sigmoid()?.f_neg()?.f_add_scalar(1.0)?.f_mul(&weights)?;
    let rewards: Vec<f32> = Vec::try_from(&ratios.f_detach()?.f_mul_scalar(beta)?)?;
    let mean_of = |wanted: bool| {
        let of = rewards.iter().zip(&laid.labels).filter(|(_, good)| **good == wanted);
        of.fold((0.0, 0.0), |(sum, count), (reward, _)| (sum + f64::from(*reward), count + 1.0))
    };
    let figures = BTreeMap::from([
        ("rewards_chosen", mean_of(true)),
        ("rewards_rejected", mean_of(false)),
        ("divergence", (divergence, 1.0)),
    ]);
    Ok(Outcome { loss: losses.f_sum(Kind::Float)?, figures })
}

fn divergence(learner: &Learner<'_>, laid: &Laid) -> Result<f64> {
    let mixed = laid.mismatched.as_deref().and_then(|batch| Some((batch, batch.documents.as_ref()?)));
    let Some((batch, laid)) = mixed else {
        return Err(Error::Spec {
            field: "kahneman_tversky_optimization",
            problem: "the rows are not judged".to_owned(),
        });
    };
    let ratios = no_grad(|| -> Result<Tensor> {
        let policy = laid.sums(&learner.log_probabilities(learner.model, batch)?)?;
        Ok(policy.f_sub(&laid.sums(&learner.reference(batch)?)?)?)
    })?;
    Ok(ratios.f_mean(Kind::Double)?.f_double_value(&[])?.max(0.0))
}
