//! A resumable snapshot: weights, optimiser state and cursor in three files whose bytes depend on nothing else.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use tidemill_models::{Error as ModelError, WEIGHTS_FILE, restore_weights, save_weights};

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

impl Trainer {
    /// Writes `model.safetensors` (what is trained), `optimizer.safetensors` and `state.json` into an existing directory.
    pub fn save(&self, directory: &Path) -> Result<()> {
        save_weights(&self.model, &directory.join(WEIGHTS_FILE))?;
        self.optimizer.save(&directory.join(OPTIMIZER_FILE), self.averages())?;
        let state = State { step: self.step, spec_digest: self.run_digest.clone(), history: self.history.clone() };
        let text = serde_json::to_string_pretty(&state).expect("plain data is always JSON") + "\n";
        let path = directory.join(STATE_FILE);
        Ok(fs::write(&path, text).map_err(|source| ModelError::Io { path, source })?)
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
        tch::no_grad(|| restore_weights(&self.model, &directory.join(WEIGHTS_FILE)))?;
        self.optimizer.load(&directory.join(OPTIMIZER_FILE), self.averages())?;
        self.step = state.step;
        self.history = state.history;
        Ok(())
    }
}
