//! A resumable snapshot: weights, optimiser state and cursor in three files whose bytes depend on nothing else.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};
use tidemill_models::{Error as ModelError, WEIGHTS_FILE, restore_weights, write_tensors};

use super::{Error, History, Result, Trainer};

/// The file that holds the optimiser's moments.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// The file that holds the cursor.
pub const STATE_FILE: &str = "state.json";

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    step: u64,
    spec_digest: String,
    history: History,
}

/// The state of a run after a step, copied: it can be written while the run goes on.
pub struct Checkpoint {
    weights: Vec<(String, Tensor)>,
    optimizer: Vec<(String, Tensor)>,
    state: State,
}

impl Checkpoint {
    /// Steps done.
    pub fn step(&self) -> u64 {
        self.state.step
    }

    /// Writes `model.safetensors` (what is trained), `optimizer.safetensors` and `state.json` into an existing directory.
    pub fn write(&self, directory: &Path) -> Result<()> {
        write_tensors(&directory.join(WEIGHTS_FILE), &self.weights)?;
        write_tensors(&directory.join(OPTIMIZER_FILE), &self.optimizer)?;
        let text = serde_json::to_string_pretty(&self.state).expect("plain data is always JSON") + "\n";
        let path = directory.join(STATE_FILE);
        Ok(fs::write(&path, text).map_err(|source| ModelError::Io { path, source })?)
    }
}

impl Trainer {
    /// The state of the run, on rank 0; the other ranks hand over their part of it, and get none.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>> {
        let mut optimizer = self.optimizer.collect()?;
        if let Some(average) = &self.average {
            optimizer.extend(average.collect(&self.model)?);
        }
        let weights = self.weights()?;
        if self.world.rank() > 0 {
            return Ok(None);
        }
        let copied = |tensors: Vec<(String, Tensor)>| -> Result<Vec<(String, Tensor)>> {
            tensors.into_iter().map(|(name, tensor)| Ok((name, copied(&tensor)?))).collect()
        };
        let state = State { step: self.step, spec_digest: self.run_digest.clone(), history: self.history.clone() };
        Ok(Some(Checkpoint { weights: copied(weights)?, optimizer: copied(optimizer)?, state }))
    }

    /// What is trained, as on disk; where it is spread over ranks, all of it on rank 0 and nothing on the others.
    fn weights(&self) -> Result<Vec<(String, Tensor)>> {
        if self.shards.is_none() {
            return Ok(if self.world.rank() == 0 { self.model.disk_tensors()? } else { Vec::new() });
        }
        let mut all = Vec::new();
        for (place, parameter) in self.model.parameters().iter().enumerate() {
            let owner = self.optimizer.owners()[place];
            let own = (owner == self.world.rank()).then_some(&parameter.tensor);
            if let Some(tensor) = self.world.collect(owner, own, &parameter.tensor)? {
                all.extend(parameter.cut(&tensor)?);
            }
        }
        Ok(all)
    }

    /// Continues where a checkpoint of the same run was written: the rest gives the bytes that an undisturbed run gives.
    pub fn resume(&mut self, directory: &Path) -> Result<()> {
        let path = directory.join(STATE_FILE);
        let text = fs::read_to_string(&path).map_err(|source| ModelError::Io { path: path.clone(), source })?;
        let broken = |problem: String| Error::Checkpoint { path: path.clone(), problem };
        let state: State = serde_json::from_str(&text).map_err(|error| broken(error.to_string()))?;
        if state.spec_digest != self.run_digest {
            return Err(broken(format!("belongs to the run {}, not to {}", state.spec_digest, self.run_digest)));
        }
        if state.step > self.spec.steps {
            return Err(broken(format!("step {} is beyond the run's {}", state.step, self.spec.steps)));
        }
        let is_here = |place| self.shards.as_ref().is_none_or(|shards| shards.is_own(place));
        tch::no_grad(|| restore_weights(&self.model, &directory.join(WEIGHTS_FILE), is_here))?;
        let averages = self.average.as_ref().map(|average| average.tensors.as_slice());
        self.optimizer.load(&directory.join(OPTIMIZER_FILE), averages)?;
        self.step = state.step;
        self.history = state.history;
        Ok(())
    }
}

/// A tensor's values at this moment, on the CPU.
fn copied(tensor: &Tensor) -> Result<Tensor> {
    let tensor = tensor.f_detach()?;
    Ok(if tensor.device() == Device::Cpu { tensor.copy() } else { tensor.f_to_device(Device::Cpu)? })
}
