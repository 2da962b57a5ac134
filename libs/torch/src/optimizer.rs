//! AdamW over lists of tensors in one fused call.

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

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn two_updates_follow_the_formula_of_the_paper() {
        let constants = AdamW { learning_rate: 0.1, beta1: 0.9, beta2: 0.95, weight_decay: 0.2, epsilon: 1e-8 };
        let zeros = || [Tensor::zeros([1], (Kind::Float, Device::Cpu))];
        let (weight, first, second) = ([Tensor::from_slice(&[2f32])], zeros(), zeros());
        let (mut w, mut m, mut v) = (2.0f64, 0.0f64, 0.0f64);
        for (step, gradient) in [(1i32, 4.0f64), (2, -1.0)] {
            // The gradient reaches the update divided by 2.
            let group = Group {
                parameters: &weight,
                gradients: &[Tensor::from_slice(&[gradient as f32])],
                first_moments: &first,
                second_moments: &second,
                steps: &[Tensor::from(step as f32)],
            };
            constants.update(&group, Some(&Tensor::from(2f32))).unwrap();
            let g = gradient / 2.0;
            w -= 0.1 * 0.2 * w;
            m = 0.9 * m + 0.1 * g;
            v = 0.95 * v + 0.05 * g * g;
            w -= 0.1 * (m / (1.0 - 0.9f64.powi(step))) / ((v / (1.0 - 0.95f64.powi(step))).sqrt() + 1e-8);
        }
        assert!((weight[0].double_value(&[0]) - w).abs() < 1e-5, "{} against {w}", weight[0].double_value(&[0]));
    }

    #[test]
    fn lists_of_different_lengths_are_refused() {
        let constants = AdamW { learning_rate: 0.1, beta1: 0.9, beta2: 0.95, weight_decay: 0.2, epsilon: 1e-8 };
        let one = [Tensor::from(1f32)];
        let group = Group { parameters: &one, gradients: &[], first_moments: &one, second_moments: &one, steps: &one };
        assert!(constants.update(&group, None).unwrap_err().to_string().contains("gradients"));
    }
}
