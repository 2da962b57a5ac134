//! The end of a run: the model as it is written.

use std::path::Path;

use tch::Device;
use tidemill_models::Model;

use super::Trainer;
use crate::learning::Result;

impl Trainer {
    /// Makes the model what it ends as, whole on rank 0: an average takes the place of the weights. All ranks call it after the last step.
    pub fn gather(&mut self) -> Result<()> {
        if let Some(average) = self.average.take() {
            average.install(&self.model)?;
            if self.shards.is_none() {
                self.world.share(self.optimizer.parameters(), self.optimizer.owners())?;
            }
        }
        self.spread.drain(..).try_for_each(|shards| shards.gather())
    }

    /// Writes what was learned into an existing directory: the model as a Hugging Face directory (`config.json`, `model.safetensors`), or
    /// its adapter in PEFT's layout with the model's `config.json`. `base` says where the adapter's base is from; `merge` makes one model
    /// of both: what was learned beside a quantised base is merged into its whole weights. This ends the run; several ranks call
    /// [`Self::gather`] before.
    pub fn export(mut self, directory: &Path, base: &str, merge: bool) -> Result<()> {
        if let Some(base) = self.base.as_ref().filter(|_| merge && self.spec.quantized_base) {
            let mut model = whole(base, self.model.device())?;
            model.adopt_adapter(&self.model)?;
            self.model = model;
        }
        if merge {
            self.model.merge_adapter()?;
        }
        if self.model.adapter().is_none() {
            return Ok(tidemill_models::save(&self.model, directory)?);
        }
        tidemill_models::save_config(&self.model, directory)?;
        Ok(tidemill_models::save_adapter(&mut self.model, directory, base)?)
    }
}

/// The model of a directory, with its adapter merged if it has one.
pub(super) fn whole(directory: &Path, device: Device) -> Result<Model> {
    let mut model = tidemill_models::load(directory, device)?;
    model.merge_adapter()?;
    Ok(model)
}
