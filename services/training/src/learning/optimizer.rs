//! AdamW and Muon with clipping over a model's parameters, and their state on disk. Among several ranks each keeps the state of the
//! parameters that it owns, updates those, and shares them (ZeRO's first stage, arXiv 1910.02054).

use std::{collections::BTreeMap, path::Path};

use tch::{Kind, Tensor};
use tidemill_models::{Error as ModelError, Model, Parameter, read_tensors};
use tidemill_torch::{
    gradients,
    optimizer::{AdamW, Group},
};

use super::{Error, Result, World, muon, spec::Optimizer as Constants};

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

/// How a parameter is updated.
#[derive(Clone, Debug, PartialEq)]
enum Rule {
    /// AdamW, with decay: matrices.
    Decayed,
    /// AdamW, without: vectors.
    Plain,
    /// Muon; the runs of rows are matrices of their own.
    Muon(Vec<i64>),
}

impl Rule {
    fn of(parameter: &Parameter, muon: bool) -> Self {
        match () {
            () if muon && parameter.is_inner_matrix() => Self::Muon(parameter.rows()),
            () if parameter.is_matrix() => Self::Decayed,
            () => Self::Plain,
        }
    }

    /// The names of what it remembers.
    fn remembers(&self) -> &'static [&'static str] {
        match self {
            Self::Decayed | Self::Plain => &["exp_avg", "exp_avg_sq"],
            Self::Muon(_) => &["momentum_buffer"],
        }
    }
}

impl Optimizer {
    /// `muon`: the momentum of Muon, which then has the matrices inside layers.
    pub(super) fn new(model: &Model, constants: Constants, muon: Option<f64>, world: World) -> Result<Self> {
        let all = model.parameters();
        let parameters: Vec<Tensor> = all.iter().map(|parameter| parameter.tensor.shallow_clone()).collect();
        let rules: Vec<Rule> = all.iter().map(|parameter| Rule::of(parameter, muon.is_some())).collect();
        let owners = world.owners(&parameters.iter().map(Tensor::numel).collect::<Vec<_>>());
        let state = |((parameter, rule), owner): ((&Tensor, &Rule), &usize)| -> Result<Vec<Tensor>> {
            let count = if *owner == world.rank() { rule.remembers().len() } else { 0 };
            (0..count).map(|_| Ok(parameter.f_detach()?.f_zeros_like()?)).collect()
        };
        let states = parameters.iter().zip(&rules).zip(&owners).map(state).collect::<Result<_>>()?;
        let names = all.iter().map(|parameter| parameter.name.clone()).collect();
        Ok(Self { constants, momentum: muon.unwrap_or_default(), names, parameters, rules, states, owners, world })
    }

    /// All parameters, in the model's order.
    pub(super) fn parameters(&self) -> &[Tensor] {
        &self.parameters
    }

    /// Applies the gradients that the backward passes left; returns their norm before clipping. `done` counts the steps before.
    pub(super) fn update(&self, done: u64, learning_rate: f64, clip_norm: f64) -> Result<f64> {
        let gradients = gradients::take(&self.parameters)?;
        let norm = gradients::global_norm(&gradients)?;
        if !norm.is_finite() {
            return Err(Error::NotFinite { what: "the gradient norm", step: done, value: norm });
        }
        let divisor = (norm > clip_norm).then(|| Tensor::from(((norm + 1e-6) / clip_norm) as f32));
        let step = Tensor::from((done + 1) as f32);
        for (rule, weight_decay) in [(Rule::Decayed, self.constants.weight_decay), (Rule::Plain, 0.0)] {
            self.adamw(&rule, &gradients, (learning_rate, weight_decay), &step, divisor.as_ref())?;
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
        self.world.share(&self.parameters, &self.owners)?;
        Ok(norm)
    }

    fn adamw(
        &self,
        rule: &Rule,
        gradients: &[Tensor],
        (learning_rate, weight_decay): (f64, f64),
        step: &Tensor,
        divisor: Option<&Tensor>,
    ) -> Result<()> {
        let chosen: Vec<usize> = self.own().filter(|index| self.rules[*index] == *rule).collect();
        if chosen.is_empty() {
            return Ok(());
        }
        let of = |tensors: &[Tensor]| chosen.iter().map(|index| tensors[*index].shallow_clone()).collect::<Vec<_>>();
        let state =
            |which: usize| chosen.iter().map(|index| self.states[*index][which].shallow_clone()).collect::<Vec<_>>();
        let steps: Vec<Tensor> = chosen.iter().map(|_| step.shallow_clone()).collect();
        let group = Group {
            parameters: &of(&self.parameters),
            gradients: &of(gradients),
            first_moments: &state(0),
            second_moments: &state(1),
            steps: &steps,
        };
        let Constants { beta1, beta2, epsilon, .. } = self.constants;
        Ok(AdamW { learning_rate, beta1, beta2, weight_decay, epsilon }.update(&group, divisor)?)
    }

    /// The parameters that this rank updates.
    fn own(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.parameters.len()).filter(|index| self.owners[*index] == self.world.rank())
    }

    /// All state, by name, on rank 0; the other ranks send theirs, and have none.
    pub(super) fn collect(&self) -> Result<Vec<(String, Tensor)>> {
        let mut all = Vec::new();
        for (index, name) in self.names.iter().enumerate() {
            for (which, what) in self.rules[index].remembers().iter().enumerate() {
                let own = self.states[index].get(which);
                let tensor = self.world.collect(self.owners[index], own, &self.parameters[index])?;
                all.extend(tensor.map(|tensor| (format!("{name}.{what}"), tensor)));
            }
        }
        Ok(all)
    }

    /// Reads what [`Self::collect`] gave with any number of ranks, and averages; every tensor that is missing, misshapen or too much is told.
    pub(super) fn load(&self, path: &Path, average: &[(String, Tensor)]) -> Result<()> {
        let mut stored = read_tensors(path)?;
        let mut problems = Vec::new();
        for (index, name) in self.names.iter().enumerate() {
            for (which, what) in self.rules[index].remembers().iter().enumerate() {
                let (own, like) = (self.states[index].get(which), &self.parameters[index]);
                restore(&mut stored, format!("{name}.{what}"), own, like, &mut problems)?;
            }
        }
        // Only rank 0 keeps averages.
        for name in self.names.iter().filter(|_| self.world.rank() > 0) {
            stored.remove(&format!("{name}.average"));
        }
        for (name, tensor) in average {
            restore(&mut stored, format!("{name}.average"), Some(tensor), tensor, &mut problems)?;
        }
        problems.extend(stored.keys().map(|name| format!("tensor {name} is not part of this optimiser")));
        if problems.is_empty() { Ok(()) } else { Err(ModelError::Weights { path: path.to_owned(), problems }.into()) }
    }
}

/// Takes a stored tensor of the shape of `like`, into its place if that is here.
fn restore(
    stored: &mut BTreeMap<String, Tensor>,
    name: String,
    into: Option<&Tensor>,
    like: &Tensor,
    problems: &mut Vec<String>,
) -> Result<()> {
    match (stored.remove(&name), into) {
        (None, _) => problems.push(format!("tensor {name} is missing")),
        (Some(tensor), _) if tensor.size() != like.size() || tensor.kind() != Kind::Float => {
            problems.push(format!("tensor {name} is {:?}, expected float32 {:?}", tensor.size(), like.size()));
        }
        (Some(tensor), Some(into)) => into.shallow_clone().f_copy_(&tensor)?,
        (Some(_), None) => {}
    }
    Ok(())
}
