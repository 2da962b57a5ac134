//! How much work a model's training is.

use crate::{Config, Model};

impl Model {
    /// Floating-point operations to learn one token in sequences of `context` tokens, as PaLM counts them (arXiv 2204.02311, appendix B):
    /// 6 for each weight that is multiplied (4 where it is frozen beside an adapter, and 6 for each of the adapter's), and
    /// 12 x layers x width x context for attention, causal or not. Embeddings that are looked up count nothing, the head does.
    /// Tokens of an encoder-decoder are those of sources and texts: each meets one of the two stacks, half of the weights.
    pub fn flops_per_token(&self, context: i64) -> f64 {
        let whole: usize =
            self.base_parameters().iter().filter(|p| p.is_inner_matrix()).map(|p| p.tensor.numel()).sum();
        let inner = whole + self.quantized_count() as usize;
        let head = self.head().map_or(0, |head| head.numel());
        let share = if matches!(self.config(), Config::T5(_)) { 0.5 } else { 1.0 };
        let (each, adapter) = match self.adapter() {
            Some(_) => (4.0, self.trained_count() as f64),
            None => (6.0, 0.0),
        };
        let config = self.config();
        let attention = config.layers() * config.heads() * config.head_size() * context;
        share * (each * (inner + head) as f64 + 6.0 * adapter) + 12.0 * attention as f64
    }
}
