//! An exponential moving average of the weights, which ends as the model.

use tch::{Tensor, no_grad};
use tidemill_models::Model;

use super::{Result, World};

/// The averages of those trained parameters that a rank owns.
pub(super) struct Average {
    decay: f64,
    names: Vec<String>,
    pub(super) tensors: Vec<Option<Tensor>>,
    owners: Vec<usize>,
    world: World,
}

impl Average {
    /// It begins where the weights are.
    pub(super) fn new(model: &Model, decay: f64, owners: Vec<usize>, world: World) -> Result<Self> {
        let copy = |(parameter, owner): (&tidemill_models::Parameter, &usize)| -> Result<Option<Tensor>> {
            Ok(if *owner == world.rank() { Some(parameter.tensor.f_detach()?.copy()) } else { None })
        };
        let tensors = model.parameters().iter().zip(&owners).map(copy).collect::<Result<_>>()?;
        let names = model.parameters().iter().map(|parameter| parameter.name.clone()).collect();
        Ok(Self { decay, names, tensors, owners, world })
    }

    /// Moves towards the weights after a step.
    pub(super) fn update(&mut self, model: &Model) -> Result<()> {
        no_grad(|| {
            for (average, parameter) in self.tensors.iter_mut().zip(model.parameters()) {
                if let Some(average) = average {
                    let _ = average.f_lerp_(&parameter.tensor, 1.0 - self.decay)?;
                }
            }
            Ok(())
        })
    }

    /// All averages, by name, on rank 0; the other ranks send theirs, and have none. `model` is the one that they are of.
    pub(super) fn collect(&self, model: &Model) -> Result<Vec<(String, Tensor)>> {
        let mut all = Vec::new();
        for (place, name) in self.names.iter().enumerate() {
            let like = &model.parameters()[place].tensor;
            let tensor = self.world.collect(self.owners[place], self.tensors[place].as_ref(), like)?;
            all.extend(tensor.map(|tensor| (format!("{name}.average"), tensor)));
        }
        Ok(all)
    }

    /// Makes the weights that this rank owns the average.
    pub(super) fn install(&self, model: &Model) -> Result<()> {
        no_grad(|| {
            for (average, parameter) in self.tensors.iter().zip(model.parameters()) {
                if let Some(average) = average {
                    parameter.tensor.shallow_clone().f_copy_(average)?;
                }
            }
            Ok(())
        })
    }
}
