//! Norms over the last dimension.

use tch::Tensor;
use tidemill_torch::ops;

use crate::{
    Result,
    builder::{Builder, Initial},
};

/// Divides by the root mean square, and scales.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    epsilon: f64,
}

impl RmsNorm {
    /// The norm whose weight has this name.
    pub(crate) fn new(builder: &mut Builder, name: String, size: i64, epsilon: f64) -> Result<Self> {
        Ok(Self { weight: builder.vector(name, size, Initial::Ones)?, epsilon })
    }

    /// The same norm, by another handle.
    pub(crate) fn share(&self) -> Self {
        Self { weight: self.weight.shallow_clone(), epsilon: self.epsilon }
    }

    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(ops::rms_norm(x, &self.weight, self.epsilon)?)
    }
}

/// Subtracts the mean, divides by the deviation, scales and shifts.
#[derive(Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Option<Tensor>,
    epsilon: f64,
}

impl LayerNorm {
    /// The norm whose tensors are `<name>.weight` and, with a bias, `<name>.bias`.
    pub(crate) fn new(builder: &mut Builder, name: &str, size: i64, bias: bool, epsilon: f64) -> Result<Self> {
        let weight = builder.vector(format!("{name}.weight"), size, Initial::Ones)?;
        let bias = match bias {
            true => Some(builder.vector(format!("{name}.bias"), size, Initial::Zeros)?),
            false => None,
        };
        Ok(Self { weight, bias, epsilon })
    }

    /// The same norm, by other handles.
    pub(crate) fn share(&self) -> Self {
        let bias = self.bias.as_ref().map(Tensor::shallow_clone);
        Self { weight: self.weight.shallow_clone(), bias, epsilon: self.epsilon }
    }

    pub(crate) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_layer_norm(self.weight.size(), Some(&self.weight), self.bias.as_ref(), self.epsilon, false)?)
    }
}
