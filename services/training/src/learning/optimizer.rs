//! AdamW and Muon with clipping over a model's parameters, and their state on disk.

use std::{collections::BTreeMap, path::Path};

use tch::{Kind, Tensor};
use tidemill_models::{Error as ModelError, Model, Parameter, read_tensors, write_tensors};
use tidemill_torch::{
    gradients,
    optimizer::{AdamW, Group},
};

use super::{Error, Result, muon, spec::Optimizer as Constants};

/// Moments of every parameter. Matrices decay, vectors do not.
pub(super) struct Optimizer {
    constants: Constants,
    matrices: Moments,
    vectors: Moments,
    muon: Option<Muon>,
}

#[derive(Default)]
struct Moments {
    names: Vec<String>,
    parameters: Vec<Tensor>,
    first: Vec<Tensor>,
    second: Vec<Tensor>,
}

/// Matrices that Muon updates.
struct Muon {
    momentum: f64,
    names: Vec<String>,
    parameters: Vec<Tensor>,
    buffers: Vec<Tensor>,
    /// Runs of rows that are matrices of their own.
    rows: Vec<Vec<i64>>,
}

impl Optimizer {
    /// `muon`: the momentum of Muon, which then has the matrices inside layers.
    pub(super) fn new(model: &Model, constants: Constants, muon: Option<f64>) -> Result<Self> {
        let (mut matrices, mut vectors) = (Moments::default(), Moments::default());
        let mut muon = muon.map(|momentum| Muon {
            momentum,
            names: Vec::new(),
            parameters: Vec::new(),
            buffers: Vec::new(),
            rows: Vec::new(),
        });
        for parameter in model.parameters() {
            match &mut muon {
                Some(muon) if parameter.is_inner_matrix() => muon.add(parameter)?,
                _ if parameter.is_matrix() => matrices.add(parameter)?,
                _ => vectors.add(parameter)?,
            }
        }
        Ok(Self { constants, matrices, vectors, muon })
    }

    /// Applies the gradients that the backward passes left; returns their norm before clipping. `done` counts the steps before.
    pub(super) fn update(&self, done: u64, learning_rate: f64, clip_norm: f64) -> Result<f64> {
        let mut all = gradients::take(&self.matrices.parameters)?;
        all.extend(gradients::take(&self.vectors.parameters)?);
        if let Some(muon) = &self.muon {
            all.extend(gradients::take(&muon.parameters)?);
        }
        let norm = gradients::global_norm(&all)?;
        if !norm.is_finite() {
            return Err(Error::NotFinite { what: "the gradient norm", step: done, value: norm });
        }
        let divisor = (norm > clip_norm).then(|| Tensor::from(((norm + 1e-6) / clip_norm) as f32));
        let (matrix_gradients, rest) = all.split_at(self.matrices.parameters.len());
        let (vector_gradients, inner_gradients) = rest.split_at(self.vectors.parameters.len());
        let step = Tensor::from((done + 1) as f32);
        for (moments, gradients, weight_decay) in
            [(&self.matrices, matrix_gradients, self.constants.weight_decay), (&self.vectors, vector_gradients, 0.0)]
        {
            if gradients.is_empty() {
                continue;
            }
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
        if let Some(muon) = &self.muon {
            let constants = (learning_rate, muon.momentum, self.constants.weight_decay);
            for (index, gradient) in inner_gradients.iter().enumerate() {
                let gradient = match &divisor {
                    Some(divisor) => gradient.f_div(divisor)?,
                    None => gradient.shallow_clone(),
                };
                muon::update(&muon.parameters[index], &gradient, &muon.buffers[index], &muon.rows[index], constants)?;
            }
        }
        Ok(norm)
    }

    pub(super) fn save(&self, path: &Path, average: &[(String, Tensor)]) -> Result<()> {
        let mut tensors: Vec<_> = self.entries().map(|(name, tensor)| (name, tensor.shallow_clone())).collect();
        tensors.extend(average.iter().map(|(name, tensor)| (format!("{name}.average"), tensor.shallow_clone())));
        Ok(write_tensors(path, &tensors)?)
    }

    /// Reads what `save` wrote; every tensor that is missing, misshapen or too much is told.
    pub(super) fn load(&self, path: &Path, average: &[(String, Tensor)]) -> Result<()> {
        let mut stored = read_tensors(path)?;
        let mut problems = Vec::new();
        for (name, tensor) in self.entries() {
            restore(&mut stored, name, tensor, &mut problems)?;
        }
        for (name, tensor) in average {
            restore(&mut stored, format!("{name}.average"), tensor, &mut problems)?;
        }
        problems.extend(stored.keys().map(|name| format!("tensor {name} is not part of this optimiser")));
        if problems.is_empty() { Ok(()) } else { Err(ModelError::Weights { path: path.to_owned(), problems }.into()) }
    }

    /// All state, by name.
    fn entries(&self) -> impl Iterator<Item = (String, &Tensor)> {
        let moments = [&self.matrices, &self.vectors].into_iter().flat_map(|moments| {
            let states = moments.first.iter().zip(&moments.second);
            moments.names.iter().zip(states).flat_map(|(name, (first, second))| {
                [(format!("{name}.exp_avg"), first), (format!("{name}.exp_avg_sq"), second)]
            })
        });
        let buffers = self.muon.iter().flat_map(|muon| {
            let names = muon.names.iter().map(|name| format!("{name}.momentum_buffer"));
            names.zip(&muon.buffers)
        });
        moments.chain(buffers)
    }
}

impl Moments {
    fn add(&mut self, parameter: &Parameter) -> Result<()> {
        self.names.push(parameter.name.clone());
        self.parameters.push(parameter.tensor.shallow_clone());
        self.first.push(parameter.tensor.f_detach()?.f_zeros_like()?);
        self.second.push(parameter.tensor.f_detach()?.f_zeros_like()?);
        Ok(())
    }
}

impl Muon {
    fn add(&mut self, parameter: &Parameter) -> Result<()> {
        self.names.push(parameter.name.clone());
        self.parameters.push(parameter.tensor.shallow_clone());
        self.buffers.push(parameter.tensor.f_detach()?.f_zeros_like()?);
        self.rows.push(parameter.rows());
        Ok(())
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
