//! Direct preference optimisation on pairs: documents 2i and 2i + 1 of a batch are the chosen and the rejected answer.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use super::{Learner, Outcome, PreferenceLoss};
use crate::learning::{
    Result,
    loader::{Laid, MicroBatch},
};

pub(super) fn outcome(
    learner: &Learner<'_>,
    batch: &MicroBatch,
    laid: &Laid,
    beta: f64,
    loss: PreferenceLoss,
    label_smoothing: f64,
) -> Result<Outcome> {
    let mut policy = laid.sums(&learner.log_probabilities(learner.model, batch)?)?;
    let mut reference = laid.sums(&learner.reference(batch)?)?;
    let sums = policy.f_detach()?;
    if loss == PreferenceLoss::Ipo {
        let counts = laid.counts(&policy)?;
        (policy, reference) = (policy.f_div(&counts)?, reference.f_div(&counts)?);
    }
    // [pairs, 2]: chosen, rejected.
    let ratios = policy.f_sub(&reference)?.f_view([-1, 2])?;
    let difference = ratios.f_select(1, 0)?.f_sub(&ratios.f_select(1, 1)?)?;
    let scaled = difference.f_mul_scalar(beta)?;
    let losses = match loss {
        PreferenceLoss::Sigmoid => {
            let right = scaled.f_log_sigmoid()?.f_mul_scalar(label_smoothing - 1.0)?;
            match label_smoothing > 0.0 {
                true => right.f_sub(&scaled.f_neg()?.f_log_sigmoid()?.f_mul_scalar(label_smoothing)?)?,
                false => right,
            }
        }
        PreferenceLoss::Ipo => difference.f_sub_scalar(1.0 / (2.0 * beta))?.f_square()?,
        PreferenceLoss::Hinge => scaled.f_neg()?.f_add_scalar(1.0)?.f_relu()?,
    };
    let rewards = ratios.f_detach()?.f_mul_scalar(beta)?;
    let (chosen, rejected) = (rewards.f_select(1, 0)?, rewards.f_select(1, 1)?);
    let log_probabilities = sums.f_view([-1, 2])?;
    let pairs = chosen.numel() as f64;
    let sum = |x: &Tensor| -> Result<(f64, f64)> { Ok((x.f_sum(Kind::Double)?.f_double_value(&[])?, pairs)) };
    let figures = BTreeMap::from([
        ("rewards_chosen", sum(&chosen)?),
        ("rewards_rejected", sum(&rejected)?),
        ("rewards_margin", sum(&chosen.f_sub(&rejected)?)?),
        ("rewards_accuracy", sum(&chosen.f_gt_tensor(&rejected)?)?),
        ("logps_chosen", sum(&log_probabilities.f_select(1, 0)?)?),
        ("logps_rejected", sum(&log_probabilities.f_select(1, 1)?)?),
    ]);
    Ok(Outcome { loss: losses.f_sum(Kind::Float)?, figures })
}
