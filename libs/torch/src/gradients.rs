//! Gradients of many parameters in one call.

use std::ptr;

use tch::Tensor;

use crate::{Result, ffi};

/// Moves the gradients out of `parameters`, leaving them without: the next backward pass starts from nothing.
pub fn take(parameters: &[Tensor]) -> Result<Vec<Tensor>> {
    let pointers = ffi::raw_all(parameters);
    let mut gradients = vec![ptr::null_mut(); parameters.len()];
    // SAFETY: both arrays have `parameters.len()` entries; the tensors outlive the call; outputs are written only on success.
    ffi::check(unsafe { ffi::tm_take_gradients(pointers.as_ptr(), pointers.len() as i64, gradients.as_mut_ptr()) })?;
    Ok(gradients.into_iter().map(ffi::adopt).collect())
}

/// The euclidean norm of all elements of all tensors together.
pub fn global_norm(tensors: &[Tensor]) -> Result<f64> {
    let pointers = ffi::raw_all(tensors);
    let mut norm = 0.0;
    // SAFETY: the array has `tensors.len()` entries, the tensors outlive the call, `norm` is a valid place for a double.
    ffi::check(unsafe { ffi::tm_global_norm(pointers.as_ptr(), pointers.len() as i64, &mut norm) })?;
    Ok(norm)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    #[test]
    fn gradients_are_moved_out_and_the_norm_covers_all_of_them() {
        let w = Tensor::from_slice(&[3f32, 4.0]).set_requires_grad(true);
        let b = Tensor::from_slice(&[1f32]).set_requires_grad(true);
        (w.square().sum(Kind::Float) + &b * 12.0).sum(Kind::Float).backward();
        let gradients = take(&[w.shallow_clone(), b.shallow_clone()]).unwrap();
        assert_eq!(Vec::<f32>::try_from(&gradients[0]).unwrap(), [6.0, 8.0]);
        assert!((global_norm(&gradients).unwrap() - (36.0f64 + 64.0 + 144.0).sqrt()).abs() < 1e-5);
        assert!(!w.grad().defined() && !b.grad().defined());
    }

    #[test]
    fn a_parameter_without_a_gradient_is_an_error() {
        let lonely = Tensor::zeros([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        assert!(take(&[lonely]).unwrap_err().to_string().contains("has no gradient"));
    }
}
