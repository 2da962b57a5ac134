//! The decoder that is served: a model of `tidemill_models`, with logits for the tokenizer's vocabulary.

use tch::Tensor;
use tidemill_models::{Attention, Cache, Model};

use super::{Decoder, Failure};

/// A model and how many of its logits mean a token.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) model: Model,
    /// Ids from here on pad the embedding: no token has them.
    pub(crate) vocabulary: usize,
}

impl Decoder for Network {
    type Cache = Cache;

    fn cache(&self, capacity: usize) -> Result<Cache, Failure> {
        Ok(Cache::new(&self.model, i64::try_from(capacity).unwrap_or(i64::MAX))?)
    }

    fn read(&self, cache: &mut Cache, ids: &[u32], logits: &mut Vec<f32>) -> Result<(), Failure> {
        let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
        let ids_bt = Tensor::f_from_slice(&ids)?.f_unsqueeze(0)?.f_to_device(self.model.device())?;
        let logits_bv = self.model.next(&ids_bt, Attention::Cached(cache))?;
        let logits_v = logits_bv.f_select(0, 0)?.f_to_kind(tch::Kind::Float)?.f_to_device(tch::Device::Cpu)?;
        let count = logits_v.numel();
        logits.resize(count, 0.0);
        logits_v.f_copy_data(logits, count)?;
        logits.truncate(self.vocabulary);
        Ok(())
    }
}

impl From<tidemill_models::Error> for Failure {
    fn from(error: tidemill_models::Error) -> Self {
        Failure(error.to_string())
    }
}

impl From<tch::TchError> for Failure {
    fn from(error: tch::TchError) -> Self {
        Failure(error.to_string())
    }
}
