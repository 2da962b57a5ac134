//! AdamW and Muon with clipping over a model's parameters, and their state on disk. Among several ranks each keeps the state of the
//! parameters that it owns, updates those, and shares them (ZeRO's first stage, arXiv 1910.02054).

use std::{collections::BTreeMap, path::Path};

use tch::{Device, Kind, Tensor};
use tidemill_models::{Error as ModelError, Model, Parameter, read_tensors};
use tidemill_torch::{
    gradients,
    optimizer::{AdamW, BLOCK, Group, Group8},
};

use super::{Error, Result, World, muon, shards::Shards, spec::Optimizer as Constants};

/// The rule and the state of every parameter.
pub(super) struct Optimizer {
    constants: Constants,
    /// Momentum of Muon.
    momentum: f64,
    names: Vec<String>,
    parameters: Vec<Tensor>,
    rules: Vec<Rule>,
    /// What the rule remembers; nothing of a parameter that another rank owns.
    states: Vec<Vec<Tensor>>,
    owners: Vec<usize>,
    world: World,
}

/// Moments of fewer numbers stay in float32, as bitsandbytes has it.
const LEAST: usize = 4096;

/// How a parameter is updated.
#[derive(Clone, Debug, PartialEq)]
enum Rule {
    /// AdamW: with decay for matrices, and with moments in 8 bits where it is asked for. Not those of embeddings: their gradients
    /// differ much from row to row (arXiv 2110.02861, section 2.3).
    AdamW { decayed: bool, int8: bool },
    /// Muon; the runs of rows are matrices of their own.
    Muon(Vec<i64>),
}

/// A tensor that a rule remembers of a parameter.
struct Memory {
    what: &'static str,
    shape: Vec<i64>,
    kind: Kind,
}

impl Memory {
    /// A tensor of its shape and kind that takes no room.
    fn like(&self) -> Result<Tensor> {
        Ok(Tensor::f_zeros([1], (self.kind, Device::Cpu))?.f_expand(&self.shape, false)?)
    }
}

impl Rule {
    fn of(parameter: &Parameter, muon: bool, int8: bool) -> Self {
        if muon && parameter.is_inner_matrix() {
            return Self::Muon(parameter.rows());
        }
        let int8 = int8 && parameter.tensor.numel() >= LEAST && !parameter.is_embedding();
        Self::AdamW { decayed: parameter.is_matrix(), int8 }
    }

    /// What it remembers of a parameter.
    fn remembers(&self, parameter: &Tensor) -> Vec<Memory> {
        let shaped = |what, kind| Memory { what, shape: parameter.size(), kind };
        let blocks = (parameter.numel() as i64 + BLOCK - 1) / BLOCK;
        let sizes = |what| Memory { what, shape: vec![blocks], kind: Kind::Float };
        match self {
            Self::AdamW { int8: false, .. } => vec![shaped("exp_avg", Kind::Float), shaped("exp_avg_sq", Kind::Float)],
            Self::AdamW { int8: true, .. } => vec![
                shaped("exp_avg", Kind::Uint8),
                sizes("exp_avg.sizes"),
                shaped("exp_avg_sq", Kind::Uint8),
                sizes("exp_avg_sq.sizes"),
            ],
            Self::Muon(_) => vec![shaped("momentum_buffer", Kind::Float)],
        }
    }
}

impl Optimizer {
    /// `muon`: the momentum of Muon, which then has the matrices inside layers.
    pub(super) fn new(model: &Model, constants: Constants, muon: Option<f64>, world: World) -> Result<Self> {
        let all = model.parameters();
        let parameters: Vec<Tensor> = all.iter().map(|parameter| parameter.tensor.shallow_clone()).collect();
        let rules: Vec<Rule> =
            all.iter().map(|parameter| Rule::of(parameter, muon.is_some(), constants.int8)).collect();
        let owners = world.owners(&parameters.iter().map(Tensor::numel).collect::<Vec<_>>());
        let state = |((parameter, rule), owner): ((&Tensor, &Rule), &usize)| -> Result<Vec<Tensor>> {
            let memories = if *owner == world.rank() { rule.remembers(parameter) } else { Vec::new() };
            let zeros = |memory: Memory| Ok(Tensor::f_zeros(&memory.shape, (memory.kind, parameter.device()))?);
            memories.into_iter().map(zeros).collect()
        };
        let states = parameters.iter().zip(&rules).zip(&owners).map(state).collect::<Result<_>>()?;
        let names = all.iter().map(|parameter| parameter.name.clone()).collect();
        Ok(Self { constants, momentum: muon.unwrap_or_default(), names, parameters, rules, states, owners, world })
    }

    /// All parameters, in the model's order.
    pub(super) fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    /// The rank that updates each parameter, and has its state.
    pub(super) fn owners(&self) -> &[usize] {
        &self.owners
    }

    /// Applies the gradients that the backward passes left; returns their norm before clipping. `done` counts the steps before. `spread` is
    /// there where weights are spread over ranks.
    pub(super) fn update(&self, done: u64, learning_rate: f64, clip_norm: f64, spread: Option<&Shards>) -> Result<f64> {
        let (gradients, norm) = match spread {
            None => {
                let gradients = gradients::take(&self.parameters)?;
                let norm = gradients::global_norm(&gradients)?;
                (gradients, norm)
            }
            Some(shards) => self.own_gradients(shards)?,
        };
        if !norm.is_finite() {
            return Err(Error::NotFinite { what: "the gradient norm", step: done, value: norm });
        }
        // Fused kernels read numbers where the weights are.
        let number = |value: f64| Tensor::from(value as f32).f_to_device(self.device());
        let divisor = (norm > clip_norm).then(|| number((norm + 1e-6) / clip_norm)).transpose()?;
        for (decayed, int8) in [(true, false), (false, false), (true, true), (false, true)] {
            let rule = Rule::AdamW { decayed, int8 };
            let weight_decay = if decayed { self.constants.weight_decay } else { 0.0 };
            self.adamw(&rule, &gradients, (learning_rate, weight_decay), done + 1, divisor.as_ref())?;
        }
        let constants = (learning_rate, self.momentum, self.constants.weight_decay);
        for index in self.own() {
            let Rule::Muon(rows) = &self.rules[index] else { continue };
            let gradient = match &divisor {
                Some(divisor) => gradients[index].f_div(divisor)?,
                None => gradients[index].shallow_clone(),
            };
            muon::update(&self.parameters[index], &gradient, &self.states[index][0], rows, constants)?;
        }
        if spread.is_none() {
            self.world.share(&self.parameters, &self.owners)?;
        }
        Ok(norm)
    }

    /// The gradients of this rank's parameters, with nothing in the place of the others', and the norm of all.
    fn own_gradients(&self, shards: &Shards) -> Result<(Vec<Tensor>, f64)> {
        let taken = shards.take_gradients()?;
        if let Some(index) = self.own().find(|index| taken[*index].is_none()) {
            let problem = format!("{} has no gradient", self.names[index]);
            return Err(Error::Torch(tidemill_torch::Error::Shim(problem)));
        }
        let own: Vec<Tensor> = taken.iter().flatten().map(Tensor::shallow_clone).collect();
        let norm = if own.is_empty() { 0.0 } else { gradients::global_norm(&own)? };
        let squares = self.world.sum(&[norm * norm])?[0];
        Ok((taken.into_iter().map(Option::unwrap_or_default).collect(), squares.sqrt()))
    }

    fn adamw(
        &self,
        rule: &Rule,
        gradients: &[Tensor],
        (learning_rate, weight_decay): (f64, f64),
        step: u64,
        divisor: Option<&Tensor>,
    ) -> Result<()> {
        let chosen: Vec<usize> = self.own().filter(|index| self.rules[*index] == *rule).collect();
        if chosen.is_empty() {
            return Ok(());
        }
        let of = |tensors: &[Tensor]| chosen.iter().map(|index| tensors[*index].shallow_clone()).collect::<Vec<_>>();
        let state =
            |which: usize| chosen.iter().map(|index| self.states[*index][which].shallow_clone()).collect::<Vec<_>>();
        let Constants { beta1, beta2, epsilon, .. } = self.constants;
        let adamw = AdamW { learning_rate, beta1, beta2, weight_decay, epsilon };
        if let Rule::AdamW { int8: true, .. } = rule {
            let group = Group8 {
                parameters: &of(&self.parameters),
                gradients: &of(gradients),
                first_codes: &state(0),
                first_sizes: &state(1),
                second_codes: &state(2),
                second_sizes: &state(3),
                step: step as i64,
            };
            return Ok(adamw.update_8bit(&group, divisor)?);
        }
        let number = Tensor::from(step as f32).f_to_device(self.device())?;
        let group = Group {
            parameters: &of(&self.parameters),
            gradients: &of(gradients),
            first_moments: &state(0),
            second_moments: &state(1),
            steps: &chosen.iter().map(|_| number.shallow_clone()).collect::<Vec<_>>(),
        };
        Ok(adamw.update(&group, divisor)?)
    }

    fn device(&self) -> Device {
        self.parameters.first().map_or(Device::Cpu, Tensor::device)
    }

    /// The parameters that this rank updates.
    fn own(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.parameters.len()).filter(|index| self.owners[*index] == self.world.rank())
    }

    /// All state, by name, on rank 0; the other ranks send theirs, and have none.
    pub(super) fn collect(&self) -> Result<Vec<(String, Tensor)>> {
        let mut all = Vec::new();
        for (index, name) in self.names.iter().enumerate() {
            for (which, memory) in self.rules[index].remembers(&self.parameters[index]).iter().enumerate() {
                let own = self.states[index].get(which);
                let tensor = self.world.collect(self.owners[index], own, &memory.like()?)?;
                all.extend(tensor.map(|tensor| (format!("{name}.{}", memory.what), tensor)));
            }
        }
        Ok(all)
    }

    /// Reads what [`Self::collect`] gave with any number of ranks, and averages; every tensor that is missing, misshapen or too much is told.
    pub(super) fn load(&self, path: &Path, averages: Option<&[Option<Tensor>]>) -> Result<()> {
        let mut stored = read_tensors(path)?;
        let mut problems = Vec::new();
        for (index, name) in self.names.iter().enumerate() {
            for (which, memory) in self.rules[index].remembers(&self.parameters[index]).iter().enumerate() {
                let own = self.states[index].get(which);
                restore(&mut stored, format!("{name}.{}", memory.what), own, &memory.like()?, &mut problems)?;
            }
        }
        for (place, average) in averages.unwrap_or_default().iter().enumerate() {
            let name = format!("{}.average", self.names[place]);
            restore(&mut stored, name, average.as_ref(), &self.parameters[place], &mut problems)?;
        }
        problems.extend(stored.keys().map(|name| format!("tensor {name} is not part of this optimiser")));
        if problems.is_empty() { Ok(()) } else { Err(ModelError::Weights { path: path.to_owned(), problems }.into()) }
    }
}

/// Takes a stored tensor of the shape and kind of `like`, into its place if that is here.
fn restore(
    stored: &mut BTreeMap<String, Tensor>,
    name: String,
    into: Option<&Tensor>,
    like: &Tensor,
    problems: &mut Vec<String>,
) -> Result<()> {
    match (stored.remove(&name), into) {
        (None, _) => problems.push(format!("tensor {name} is missing")),
        (Some(tensor), _) if tensor.size() != like.size() || tensor.kind() != like.kind() => {
            let (found, expected) = ((tensor.kind(), tensor.size()), (like.kind(), like.size()));
            problems.push(format!("tensor {name} is {found:?}, expected {expected:?}"));
        }
        (Some(tensor), Some(into)) => into.shallow_clone().f_copy_(&tensor)?,
        (Some(_), None) => {}
    }
    Ok(())
}
