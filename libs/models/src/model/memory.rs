//! What saves memory while training: weights in four bits beside an adapter, blocks that run again, and those whose weights are not always
//! here.

use std::sync::Arc;

use super::Model;
use crate::{
    Error, Result,
    lora::Values,
    recompute::{Again, Around},
};

impl Model {
    /// How many of the model's numbers are kept in NF4.
    pub fn quantized_count(&self) -> i64 {
        self.quantized
    }

    /// Puts the adapter of another model of the same shape beside the layers.
    ///
    /// # Errors
    /// The other has none, or this one has one already.
    pub fn adopt_adapter(&mut self, other: &Self) -> Result<()> {
        let Some(config) = other.adapter() else {
            return Err(Error::Adapter(vec!["the model has none".to_owned()]));
        };
        let mut tensors = other.disk_tensors()?.into_iter().collect();
        self.attach(config, Values::Tensors(&mut tensors))
    }

    /// Makes each block keep its input alone for a backward pass, and run again there (arXiv 1604.06174): the same numbers, in less memory
    /// and more time. Nothing changes where no gradients are asked for.
    pub fn set_recomputing(&mut self, on: bool) {
        self.recomputing = on.then(Again::default);
    }

    /// Runs blocks again as [`Model::set_recomputing`] does, and does something around each run of each block.
    pub fn set_around(&mut self, around: Arc<dyn Around>) {
        self.recomputing = Some(Again { around: Some(around) });
    }
}
