//! Weights that are spread over ranks (ZeRO's third stage, arXiv 1910.02054; PyTorch's FSDP, arXiv 2304.11277).
//!
//! Each tensor has an owner, as the optimiser's state has. What lies outside of the blocks is whole on all ranks during a step; a block's
//! weights come together for a run of it and go after, and its gradients go to their owners.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tch::Tensor;
use tidemill_models::{Around, Model};
use tidemill_torch::{Error as TorchError, Result as TorchResult, gradients, storage};

use super::{Error, Result, World};

/// The tensors of a model, each with its owner.
#[derive(Debug)]
pub(super) struct Shards {
    world: World,
    owners: Vec<usize>,
    trained: bool,
    units: Mutex<BTreeMap<Unit, Together>>,
}

/// A block, or what lies outside of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Unit {
    Outer,
    Block(usize),
}

/// Tensors that come together.
#[derive(Debug, Default)]
struct Together {
    /// Their places among the model's parameters.
    places: Vec<usize>,
    tensors: Vec<Tensor>,
    owners: Vec<usize>,
    /// The sum of the gradients of this rank's tensors, end to end, since it was last taken.
    sum: Option<Tensor>,
}

impl Shards {
    /// Spreads the weights of a model, without an adapter's: from now on it runs inside [`Self::held`] alone, on all ranks at once.
    /// `owners` are those of its parameters; `trained` says whether these are what is trained.
    pub(super) fn spread(model: &mut Model, owners: Vec<usize>, trained: bool, world: World) -> Result<Arc<Self>> {
        let mut units: BTreeMap<Unit, Together> = BTreeMap::new();
        for (place, (parameter, owner)) in model.base_parameters().iter().zip(&owners).enumerate() {
            let unit = units.entry(parameter.block().map_or(Unit::Outer, Unit::Block)).or_default();
            unit.places.push(place);
            unit.tensors.push(parameter.tensor.shallow_clone());
            unit.owners.push(*owner);
        }
        units.values().try_for_each(|unit| unit.let_go(&world))?;
        let shards = Arc::new(Self { world, owners, trained, units: Mutex::new(units) });
        model.set_around(shards.clone());
        Ok(shards)
    }

    /// As [`Self::spread`], of a model that is only read.
    pub(super) fn spread_constant(model: &mut Model, world: World) -> Result<Arc<Self>> {
        let sizes: Vec<usize> = model.base_parameters().iter().map(|parameter| parameter.tensor.numel()).collect();
        Self::spread(model, world.owners(&sizes), false, world)
    }

    /// Whether a parameter is this rank's.
    pub(super) fn is_own(&self, place: usize) -> bool {
        self.owners[place] == self.world.rank()
    }

    /// Runs `body` with what lies outside of the blocks whole.
    pub(super) fn held<T>(&self, body: impl FnOnce() -> Result<T>) -> Result<T> {
        self.of(Unit::Outer, |unit| unit.bring(&self.world))?;
        let result = body();
        self.of(Unit::Outer, |unit| unit.let_go(&self.world))?;
        result
    }

    /// Inside [`Self::held`], after an update: what lies outside of the blocks becomes what its owners made of it.
    pub(super) fn renew(&self) -> Result<()> {
        self.of(Unit::Outer, |unit| unit.bring(&self.world))
    }

    /// Sends the gradients of what lies outside of the blocks to their owners, and gives those of this rank's parameters, which the passes
    /// since the last call have left: one for each parameter, nothing for another rank's.
    pub(super) fn take_gradients(&self) -> Result<Vec<Option<Tensor>>> {
        self.of(Unit::Outer, |unit| unit.reduce(&self.world))?;
        let mut taken: Vec<Option<Tensor>> = self.owners.iter().map(|_| None).collect();
        for unit in self.units.lock().unwrap_or_else(PoisonError::into_inner).values_mut() {
            let Some(row) = unit.sum.take() else { continue };
            let mut start = 0;
            for (place, tensor) in unit.places.iter().zip(&unit.tensors).filter(|(place, _)| self.is_own(**place)) {
                let count = tensor.numel() as i64;
                taken[*place] = Some(row.f_narrow(0, start, count)?.f_view_as(tensor)?);
                start += count;
            }
        }
        Ok(taken)
    }

    /// Brings all weights to rank 0, which keeps them.
    pub(super) fn gather(&self) -> Result<()> {
        for unit in self.units.lock().unwrap_or_else(PoisonError::into_inner).values() {
            for (tensor, owner) in unit.tensors.iter().zip(&unit.owners) {
                let own = (*owner == self.world.rank()).then_some(tensor);
                let Some(values) = self.world.collect(*owner, own, tensor)? else { continue };
                storage::restore(tensor)?;
                tch::no_grad(|| tensor.f_detach()?.f_copy_(&values).map(drop))?;
            }
        }
        Ok(())
    }

    fn of(&self, unit: Unit, body: impl FnOnce(&mut Together) -> Result<()>) -> Result<()> {
        let mut units = self.units.lock().unwrap_or_else(PoisonError::into_inner);
        units.get_mut(&unit).map_or(Ok(()), body)
    }
}

impl Together {
    /// Makes them whole on this rank.
    fn bring(&self, world: &World) -> Result<()> {
        for tensor in &self.tensors {
            storage::restore(tensor)?;
        }
        world.share(&self.tensors, &self.owners)
    }

    /// Leaves this rank with its own.
    fn let_go(&self, world: &World) -> Result<()> {
        for (tensor, _) in self.tensors.iter().zip(&self.owners).filter(|(_, owner)| **owner != world.rank()) {
            storage::release(tensor)?;
        }
        Ok(())
    }

    /// Adds the gradients that a pass left to the sums of their owners; passes without gradients leave none.
    fn reduce(&mut self, world: &World) -> Result<()> {
        let Some(first) = self.tensors.first() else { return Ok(()) };
        if !first.f_grad()?.defined() {
            return Ok(());
        }
        let gradients = gradients::take(&self.tensors)?;
        let Some(own) = world.reduce(gradients, &self.owners)? else { return Ok(()) };
        match &mut self.sum {
            Some(sum) => drop(sum.f_add_(&own)?),
            None => self.sum = Some(own),
        }
        Ok(())
    }
}

impl Around for Shards {
    fn enter(&self, block: usize) -> TorchResult<()> {
        self.of(Unit::Block(block), |unit| unit.bring(&self.world)).map_err(torch)
    }

    fn leave(&self, block: usize) -> TorchResult<()> {
        let left = |unit: &mut Together| {
            if self.trained {
                unit.reduce(&self.world)?;
            }
            unit.let_go(&self.world)
        };
        self.of(Unit::Block(block), left).map_err(torch)
    }
}

fn torch(error: Error) -> TorchError {
    match error {
        Error::Torch(error) => error,
        other => TorchError::Shim(other.to_string()),
    }
}
