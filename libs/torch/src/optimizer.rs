//! AdamW over lists of tensors in one fused call; its moments in float32, or in 8 bits (arXiv 2110.02861).

use std::ptr;

use tch::Tensor;

use crate::{Error, Result, ffi};

/// Constants of one AdamW update.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Step size.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
}

/// What one update reads and writes: element `i` of each list belongs together.
#[derive(Debug)]
pub struct Group<'a> {
    /// Weights, changed in place.
    pub parameters: &'a [Tensor],
    /// Their gradients; divided in place by the divisor given to [`AdamW::update`].
    pub gradients: &'a [Tensor],
    /// First moments, changed in place.
    pub first_moments: &'a [Tensor],
    /// Second moments, changed in place.
    pub second_moments: &'a [Tensor],
    /// Steps done including this one, one float32 scalar a parameter.
    pub steps: &'a [Tensor],
}

impl AdamW {
    /// One update of a group. Gradients are first divided by `gradient_divisor`, a float32 scalar, where there is one.
    pub fn update(&self, group: &Group<'_>, gradient_divisor: Option<&Tensor>) -> Result<()> {
        let expected = group.parameters.len();
        for (what, list) in [
            ("gradients", group.gradients),
            ("first moments", group.first_moments),
            ("second moments", group.second_moments),
            ("steps", group.steps),
        ] {
            if list.len() != expected {
                return Err(Error::Count { what, expected, actual: list.len() });
            }
        }
        let lists = [group.parameters, group.gradients, group.first_moments, group.second_moments, group.steps]
            .map(ffi::raw_all);
        // SAFETY: the five arrays have `expected` entries each, and their tensors and the divisor outlive the call.
        ffi::check(unsafe {
            ffi::tm_fused_adamw(
                lists[0].as_ptr(),
                lists[1].as_ptr(),
                lists[2].as_ptr(),
                lists[3].as_ptr(),
                lists[4].as_ptr(),
                expected as i64,
                self.learning_rate,
                self.beta1,
                self.beta2,
                self.weight_decay,
                self.epsilon,
                gradient_divisor.map_or(ptr::null_mut(), ffi::raw),
            )
        })
    }
}

/// Numbers of a block of 8-bit moments.
pub const BLOCK: i64 = 256;

/// As [`Group`], with moments in 8 bits: dynamic quantisation in blocks of [`BLOCK`], as bitsandbytes has it. All zero is where they begin.
#[derive(Debug)]
pub struct Group8<'a> {
    /// Weights, float32, changed in place.
    pub parameters: &'a [Tensor],
    /// Their gradients; divided by the divisor given to [`AdamW::update_8bit`].
    pub gradients: &'a [Tensor],
    /// First moments: uint8 in the shape of the weights, changed in place.
    pub first_codes: &'a [Tensor],
    /// The size of each block of them, float32, changed in place.
    pub first_sizes: &'a [Tensor],
    /// Second moments, in the same way.
    pub second_codes: &'a [Tensor],
    /// The size of each block of them.
    pub second_sizes: &'a [Tensor],
    /// Steps done, this one included.
    pub step: i64,
}

impl AdamW {
    /// One update of a group whose moments are kept in 8 bits.
    pub fn update_8bit(&self, group: &Group8<'_>, gradient_divisor: Option<&Tensor>) -> Result<()> {
        let expected = group.parameters.len();
        let lists = [
            ("parameters", group.parameters),
            ("gradients", group.gradients),
            ("codes of first moments", group.first_codes),
            ("sizes of first moments", group.first_sizes),
            ("codes of second moments", group.second_codes),
            ("sizes of second moments", group.second_sizes),
        ];
        if let Some((what, list)) = lists.iter().find(|(_, list)| list.len() != expected) {
            return Err(Error::Count { what, expected, actual: list.len() });
        }
        let lists = lists.map(|(_, list)| ffi::raw_all(list));
        // SAFETY: the six arrays have `expected` entries each, and their tensors and the divisor outlive the call.
        ffi::check(unsafe {
            ffi::tm_adamw_8bit(
                lists[0].as_ptr(),
                lists[1].as_ptr(),
                lists[2].as_ptr(),
                lists[3].as_ptr(),
                lists[4].as_ptr(),
                lists[5].as_ptr(),
                expected as i64,
                group.step,
                self.learning_rate,
                self.beta1,
                self.beta2,
                self.weight_decay,
                self.epsilon,
                gradient_divisor.map_or(ptr::null_mut(), ffi::raw),
            )
        })
    }
}

#[cfg(test)]
mod tests;
