//! The matrix of a linear layer: whole, or in four bits where an adapter learns beside it.

use tch::{Device, Tensor};
use tidemill_torch::{
    fp8,
    nf4::{self, Nf4},
};

use crate::{Error, Result};

/// [o, i].
#[derive(Debug)]
pub(crate) enum Weight {
    /// In float32.
    Whole(Tensor),
    /// In NF4: one matrix for each module that the rows belong to.
    Quantized(Vec<Nf4>),
}

impl Weight {
    /// `x W^T + b`: [n, i] -> [n, o].
    pub(crate) fn apply(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        Ok(match self {
            Self::Whole(weight) => fp8::linear(x, weight, bias)?,
            Self::Quantized(parts) => nf4::linear(x, parts, bias)?,
        })
    }

    /// The rows of one module.
    pub(crate) fn part(&self, start: i64, rows: i64) -> Result<Self> {
        match self {
            Self::Whole(weight) => Ok(Self::Whole(weight.f_narrow(0, start, rows)?)),
            Self::Quantized(parts) => {
                let mut at = 0;
                for part in parts {
                    if (at, part.size().0) == (start, rows) {
                        return Ok(Self::Quantized(vec![part.shallow_clone()]));
                    }
                    at += part.size().0;
                }
                Err(Error::Unsupported(format!("rows {start} to {} are no module of a quantised layer", start + rows)))
            }
        }
    }

    /// All of it in float32, as a constant.
    pub(crate) fn matrix(&self) -> Result<Tensor> {
        Ok(match self {
            Self::Whole(weight) => weight.f_detach()?,
            Self::Quantized(parts) => nf4::dequantize(parts)?,
        })
    }

    /// Rows and columns.
    pub(crate) fn size(&self) -> (i64, i64) {
        match self {
            Self::Whole(weight) => (weight.size()[0], weight.size()[1]),
            Self::Quantized(parts) => {
                (parts.iter().map(|part| part.size().0).sum(), parts.first().map_or(0, |part| part.size().1))
            }
        }
    }

    pub(crate) fn device(&self) -> Device {
        match self {
            Self::Whole(weight) => weight.device(),
            Self::Quantized(parts) => parts.first().map_or(Device::Cpu, Nf4::device),
        }
    }

    /// The same weight, by another handle.
    pub(crate) fn share(&self) -> Self {
        match self {
            Self::Whole(weight) => Self::Whole(weight.shallow_clone()),
            Self::Quantized(parts) => Self::Quantized(parts.iter().map(Nf4::shallow_clone).collect()),
        }
    }
}
