//! Rotary positions (arXiv 2104.09864), half-split as Hugging Face stores them, with the ways of stretching them to longer contexts.
//!
//! The formulas are those of `transformers.modeling_rope_utils`, in float32 and in its order of operations.

use std::f64::consts::PI;

use tch::{Device, Kind, Tensor};

use crate::{
    Result,
    config::{Rope, RopeScaling},
};

/// Cosines and sines of every position, [context, d/2].
#[derive(Debug)]
pub(crate) struct Rotation {
    cosines: Tensor,
    sines: Tensor,
}

impl Rotation {
    /// The angles of heads of `d` numbers, for positions below `context`.
    pub(crate) fn new(rope: &Rope, d: i64, context: i64, device: Device) -> Result<Self> {
        let frequencies = frequencies(rope, d, context)?;
        let positions = Tensor::f_arange(context, (Kind::Float, Device::Cpu))?;
        let angles = positions.f_outer(&frequencies)?;
        let (mut cosines, mut sines) = (angles.f_cos()?, angles.f_sin()?);
        if let Some(RopeScaling::Yarn { attention_factor, .. }) = &rope.scaling {
            cosines = cosines.f_mul_scalar(*attention_factor)?;
            sines = sines.f_mul_scalar(*attention_factor)?;
        }
        Ok(Self { cosines: cosines.f_to_device(device)?, sines: sines.f_to_device(device)? })
    }

    /// The angles of `t` positions from `start` on.
    pub(crate) fn range(&self, start: i64, t: i64) -> Result<(Tensor, Tensor)> {
        Ok((self.cosines.f_narrow(0, start, t)?, self.sines.f_narrow(0, start, t)?))
    }

    /// The angles of the given positions.
    pub(crate) fn at(&self, positions: &Tensor) -> Result<(Tensor, Tensor)> {
        Ok((self.cosines.f_index_select(0, positions)?, self.sines.f_index_select(0, positions)?))
    }
}

/// Radians a position, [d/2].
fn frequencies(rope: &Rope, d: i64, context: i64) -> Result<Tensor> {
    let exponents = Tensor::f_arange(d / 2, (Kind::Float, Device::Cpu))?.f_mul_scalar(2.0)?.f_div_scalar(d as f64)?;
    let periods = Tensor::from(rope.theta as f32).f_pow(&exponents)?;
    let plain = periods.f_reciprocal()?;
    Ok(match &rope.scaling {
        None => plain,
        Some(RopeScaling::Linear { factor }) => plain.f_div_scalar(*factor)?,
        Some(RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_context }) => {
            let (low, high, original) = (*low_frequency_factor, *high_frequency_factor, *original_context as f64);
            let wavelengths = plain.f_reciprocal()?.f_mul_scalar(2.0 * PI)?;
            let slowed = plain.f_div_scalar(*factor)?;
            let smooth = wavelengths.f_reciprocal()?.f_mul_scalar(original)?.f_sub_scalar(low)?;
            let smooth = smooth.f_div_scalar(high - low)?;
            let mixed = smooth.f_neg()?.f_add_scalar(1.0)?.f_mul(&slowed)?.f_add(&smooth.f_mul(&plain)?)?;
            let (long, short) = (wavelengths.f_gt(original / low)?, wavelengths.f_lt(original / high)?);
            plain.f_where_self(&short, &slowed.f_where_self(&long, &mixed)?)?
        }
        Some(RopeScaling::Yarn { factor, beta_fast, beta_slow, original_context, truncate, .. }) => {
            let original = original_context.unwrap_or(context) as f64;
            // The dimension whose wave turns this often over the original context.
            let dimension = |turns: f64| d as f64 * (original / (turns * 2.0 * PI)).ln() / (2.0 * rope.theta.ln());
            let (mut low, mut high) = (dimension(*beta_fast), dimension(*beta_slow));
            if *truncate {
                (low, high) = (low.floor(), high.ceil());
            }
            (low, high) = (low.max(0.0), high.min(d as f64 - 1.0));
            if low == high {
                high += 0.001; // As transformers does, so that nothing is divided by zero.
            }
            let ramp = Tensor::f_arange(d / 2, (Kind::Float, Device::Cpu))?.f_sub_scalar(low)?;
            let interpolated = ramp.f_div_scalar(high - low)?.f_clamp(0.0, 1.0)?;
            let kept = interpolated.f_neg()?.f_add_scalar(1.0)?;
            let slowed = periods.f_mul_scalar(*factor)?.f_reciprocal()?;
            let slowed = slowed.f_mul(&kept.f_neg()?.f_add_scalar(1.0)?)?;
            slowed.f_add(&plain.f_mul(&kept)?)?
        }
    })
}
