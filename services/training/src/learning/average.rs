//! An exponential moving average of the weights, which ends as the model.

use tch::{Tensor, no_grad};
use tidemill_models::Model;

use super::Result;

/// The average of each trained parameter.
pub(super) struct Average {
    decay: f64,
    pub(super) tensors: Vec<(String, Tensor)>,
}

impl Average {
    /// It begins where the weights are.
    pub(super) fn new(model: &Model, decay: f64) -> Result<Self> {
        let copy = |parameter: &tidemill_models::Parameter| -> Result<(String, Tensor)> {
            Ok((parameter.name.clone(), parameter.tensor.f_detach()?.copy()))
        };
        Ok(Self { decay, tensors: model.parameters().iter().map(copy).collect::<Result<_>>()? })
    }

    /// Moves towards the weights after a step.
    pub(super) fn update(&mut self, model: &Model) -> Result<()> {
        no_grad(|| {
            for ((_, average), parameter) in self.tensors.iter_mut().zip(model.parameters()) {
                let _ = average.f_lerp_(&parameter.tensor, 1.0 - self.decay)?;
            }
            Ok(())
        })
    }

    /// Makes the weights the average.
    pub(super) fn install(&self, model: &Model) -> Result<()> {
        no_grad(|| {
            for ((_, average), parameter) in self.tensors.iter().zip(model.parameters()) {
                parameter.tensor.shallow_clone().f_copy_(average)?;
            }
            Ok(())
        })
    }
}
