//! The number format of matrix products.

use serde::Serialize;
use tch::Device;
use tidemill_models::Model;
use tidemill_torch::{autocast, fp8};

use super::{Error, Result};

/// Number format of matrix products; weights and optimiser state stay float32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// float32.
    Float32,
    /// bfloat16.
    Bfloat16,
    /// float8 in linear layers inside the model, bfloat16 elsewhere.
    Fp8,
}

impl Precision {
    /// Refuses what the device cannot multiply.
    pub(super) fn check(self, device: Device) -> Result<()> {
        if self != Self::Fp8 {
            return Ok(());
        }
        fp8::check(device).map_err(|error| {
            let problem = format!(
                "the device has no products in float8, which takes a GPU of compute capability 8.9 or later: use BFLOAT16 ({error})"
            );
            Error::Spec { field: "precision", problem }
        })
    }

    /// Runs `body` with products in this format.
    pub(super) fn run<T>(self, device: Device, body: impl FnOnce() -> T) -> Result<T> {
        Ok(match self {
            Self::Float32 => body(),
            Self::Bfloat16 => autocast::bfloat16(device, body)?,
            Self::Fp8 => autocast::fp8(device, body)?,
        })
    }

    /// Weights of layers inside a model that stay in bfloat16 where float8 is asked for, because of their sizes.
    pub(super) fn left_out(self, model: &Model) -> Vec<&str> {
        if self != Self::Fp8 {
            return Vec::new();
        }
        let fits = |size: &[i64]| matches!(size, [rows, columns] if fp8::fits(*rows, *columns));
        let inner = model.base_parameters().iter().filter(|parameter| parameter.is_inner_matrix());
        inner.filter(|parameter| !fits(&parameter.tensor.size())).map(|parameter| parameter.name.as_str()).collect()
    }
}
