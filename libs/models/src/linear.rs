//! A linear layer: its weight, which may be several modules of a checkpoint stacked, and the adapters beside it.
//!
//! Shapes: n rows in, i inputs, o outputs, r rank.

use std::sync::Arc;

use tch::Tensor;

use crate::{Result, lora::Adapter, parameter::Piece, weight::Weight};

/// `x W^T + b`, plus what adapters add.
#[derive(Debug)]
pub(crate) struct Linear {
    pub(crate) weight: Weight,
    pub(crate) bias: Option<Tensor>,
    /// The modules that the rows of the weight belong to, in order, as a checkpoint names their weights.
    pub(crate) modules: Arc<[Piece]>,
    /// Whether checkpoints hold the weight as [in, out] (GPT-2's Conv1D).
    pub(crate) transposed: bool,
    /// At most one for each module, in their order.
    pub(crate) adapters: Vec<Adapter>,
}

impl Linear {
    /// [n, i] -> [n, o].
    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let y = self.weight.apply(x, self.bias.as_ref())?;
        if self.adapters.is_empty() {
            return Ok(y);
        }
        let (last, outputs) = (x.dim() as i64 - 1, self.outputs());
        let mut shape = y.size();
        let (mut parts, mut at) = (Vec::new(), 0);
        let mut untouched = |parts: &mut Vec<Tensor>, rows: i64| -> Result<()> {
            if rows > 0 {
                shape[last as usize] = rows;
                parts.push(Tensor::f_zeros(&shape, (y.kind(), y.device()))?);
            }
            Ok(())
        };
        for adapter in &self.adapters {
            untouched(&mut parts, adapter.start - at)?;
            let base = || -> Result<Tensor> {
                let rows = y.f_narrow(last, adapter.start, adapter.rows)?;
                match &self.bias {
                    Some(bias) => Ok(rows.f_sub(&bias.f_narrow(0, adapter.start, adapter.rows)?)?),
                    None => Ok(rows),
                }
            };
            let weight = self.weight.part(adapter.start, adapter.rows)?;
            parts.push(adapter.added(x, base, &weight)?);
            at = adapter.start + adapter.rows;
        }
        untouched(&mut parts, outputs - at)?;
        let added = if parts.len() == 1 { parts.remove(0) } else { Tensor::f_cat(&parts, last)? };
        Ok(y.f_add(&added)?)
    }

    /// Rows of the weight.
    pub(crate) fn outputs(&self) -> i64 {
        self.weight.size().0
    }

    /// Columns of the weight.
    pub(crate) fn inputs(&self) -> i64 {
        self.weight.size().1
    }

    /// The same layer, by other handles of its tensors.
    pub(crate) fn share(&self) -> Self {
        Self {
            weight: self.weight.share(),
            bias: self.bias.as_ref().map(Tensor::shallow_clone),
            modules: self.modules.clone(),
            transposed: self.transposed,
            adapters: self.adapters.iter().map(Adapter::share).collect(),
        }
    }
}
