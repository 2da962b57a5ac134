//! AdamW with clipping over a model's parameters, and its state on disk.

use std::{collections::BTreeMap, path::Path};

use tch::{Kind, Tensor};
use tidemill_models::{Error as ModelError, Model, read_tensors, write_tensors};
use tidemill_torch::{
    gradients,
    optimizer::{AdamW, Group},
};

use super::{Error, Result, spec::Optimizer as Constants};

/// Moments of every parameter. Matrices decay, vectors do not.
pub(super) struct Optimizer {
    constants: Constants,
    matrices: Moments,
    vectors: Moments,
}

#[derive(Default)]
struct Moments {
    names: Vec<String>,
    parameters: Vec<Tensor>,
    first: Vec<Tensor>,
    second: Vec<Tensor>,
}

impl Optimizer {
    pub(super) fn new(model: &Model, constants: Constants) -> Result<Self> {
        let (mut matrices, mut vectors) = (Moments::default(), Moments::default());
        for parameter in model.parameters() {
            let moments = if parameter.is_matrix() { &mut matrices } else { &mut vectors };
            moments.names.push(parameter.name.clone());
            moments.parameters.push(parameter.tensor.shallow_clone());
            moments.first.push(parameter.tensor.f_detach()?.f_zeros_like()?);
            moments.second.push(parameter.tensor.f_detach()?.f_zeros_like()?);
        }
        Ok(Self { constants, matrices, vectors })
    }

    /// Applies the gradients that the backward passes left; returns their norm before clipping. `done` counts the steps before.
    pub(super) fn update(&self, done: u64, learning_rate: f64, clip_norm: f64) -> Result<f64> {
        let mut matrix_gradients = gradients::take(&self.matrices.parameters)?;
        let vector_gradients = gradients::take(&self.vectors.parameters)?;
        let matrices = matrix_gradients.len();
        matrix_gradients.extend(vector_gradients);
        let norm = gradients::global_norm(&matrix_gradients)?;
        if !norm.is_finite() {
            return Err(Error::NotFinite { what: "the gradient norm", step: done, value: norm });
        }
        let divisor = (norm > clip_norm).then(|| Tensor::from(((norm + 1e-6) / clip_norm) as f32));
        let (matrix_gradients, vector_gradients) = matrix_gradients.split_at(matrices);
        let step = Tensor::from((done + 1) as f32);
        for (moments, gradients, weight_decay) in
            [(&self.matrices, matrix_gradients, self.constants.weight_decay), (&self.vectors, vector_gradients, 0.0)]
        {
            let update = AdamW {
                learning_rate,
                beta1: self.constants.beta1,
                beta2: self.constants.beta2,
                weight_decay,
                epsilon: self.constants.epsilon,
            };
            let steps: Vec<Tensor> = gradients.iter().map(|_| step.shallow_clone()).collect();
            let group = Group {
                parameters: &moments.parameters,
                gradients,
                first_moments: &moments.first,
                second_moments: &moments.second,
                steps: &steps,
            };
            update.update(&group, divisor.as_ref())?;
        }
        Ok(norm)
    }

    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let mut tensors = Vec::new();
        for (name, first, second) in self.entries() {
            tensors.push((format!("{name}.exp_avg"), first.shallow_clone()));
            tensors.push((format!("{name}.exp_avg_sq"), second.shallow_clone()));
        }
        Ok(write_tensors(path, &tensors)?)
    }

    /// Reads what `save` wrote; every tensor that is missing, misshapen or too much is told.
    pub(super) fn load(&self, path: &Path) -> Result<()> {
        let mut stored = read_tensors(path)?;
        let mut problems = Vec::new();
        for (name, first, second) in self.entries() {
            restore(&mut stored, format!("{name}.exp_avg"), first, &mut problems)?;
            restore(&mut stored, format!("{name}.exp_avg_sq"), second, &mut problems)?;
        }
        problems.extend(stored.keys().map(|name| format!("tensor {name} is not part of this optimiser")));
        if problems.is_empty() { Ok(()) } else { Err(ModelError::Weights { path: path.to_owned(), problems }.into()) }
    }

    fn entries(&self) -> impl Iterator<Item = (&String, &Tensor, &Tensor)> {
        [&self.matrices, &self.vectors].into_iter().flat_map(|moments| {
            let states = moments.first.iter().zip(&moments.second);
            moments.names.iter().zip(states).map(|(name, (first, second))| (name, first, second))
        })
    }
}

fn restore(
    stored: &mut BTreeMap<String, Tensor>,
    name: String,
    into: &Tensor,
    problems: &mut Vec<String>,
) -> Result<()> {
    match stored.remove(&name) {
        None => problems.push(format!("tensor {name} is missing")),
        Some(tensor) if tensor.size() != into.size() || tensor.kind() != Kind::Float => {
            problems.push(format!("tensor {name} is {:?}, expected float32 {:?}", tensor.size(), into.size()));
        }
        Some(tensor) => into.shallow_clone().f_copy_(&tensor)?,
    }
    Ok(())
}
