//! Distillation: the student's distribution of each learned token is drawn to a teacher's (arXiv 1503.02531).

use std::collections::BTreeMap;

use tch::{Kind, Tensor, no_grad};
use tidemill_models::{IGNORED, Model};

use super::{Distillation, Learner, Outcome};
use crate::learning::{Result, loader::MicroBatch};

/// weight T^2 KL(teacher || student), both at temperature T, plus (1 - weight) times the cross-entropy, summed over learned tokens.
pub(super) fn outcome(
    learner: &Learner<'_>,
    teacher: &Model,
    batch: &MicroBatch,
    constants: Distillation,
) -> Result<Outcome> {
    let Distillation { temperature, weight } = constants;
    let targets = batch.targets_bt.f_flatten(0, 1)?;
    let places = targets.f_ne(IGNORED)?.f_nonzero()?.f_squeeze_dim(1)?;
    // [learned tokens, vocabulary], float32.
    let logits = |model: &Model| -> Result<Tensor> {
        let all = learner.in_precision(|| model.forward(&batch.inputs_bt, batch.attention()))?;
        Ok(all.f_flatten(0, 1)?.f_index_select(0, &places)?.f_to_kind(Kind::Float)?)
    };
    let (student, teacher) = (logits(learner.model)?, no_grad(|| logits(teacher))?);
    let soft = |logits: &Tensor| logits.f_div_scalar(temperature)?.f_log_softmax(-1, Kind::Float);
    let (own, wanted) = (soft(&student)?, soft(&teacher)?);
    let divergence = wanted.f_exp()?.f_mul(&wanted.f_sub(&own)?)?.f_sum(Kind::Float)?;
    let learned = targets.f_index_select(0, &places)?.f_unsqueeze(1)?;
    let likelihoods = student.f_log_softmax(-1, Kind::Float)?.f_gather(1, &learned, false)?.f_sum(Kind::Float)?;
    let loss =
        divergence.f_mul_scalar(weight * temperature * temperature)?.f_sub(&likelihoods.f_mul_scalar(1.0 - weight)?)?;
    let count = batch.supervised as f64;
    let figures = BTreeMap::from([
        ("cross_entropy", (-likelihoods.f_double_value(&[])?, count)),
        ("divergence", (divergence.f_double_value(&[])?, count)),
    ]);
    Ok(Outcome { loss, figures })
}
