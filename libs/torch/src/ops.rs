//! Operations of a decoder whose eager form wastes memory traffic or threads; differentiable, with one backward each.
//!
//! Shapes: b batch, t time, c width, h query heads, k key and value heads, d head size, i width inside the MLP.

use std::ptr;

use tch::Tensor;

use crate::{
    Result,
    ffi::{self, RawTensor},
};

/// `x [.., in] * weight [out, in]^T + bias`.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
    let bias = bias.map_or(ptr::null_mut(), ffi::raw);
    // SAFETY: tensors outlive the call; `out` has one place, written on success only.
    one(|out| unsafe { ffi::tm_linear(ffi::raw(x), ffi::raw(weight), bias, out) })
}

/// Divides each row by its root mean square and multiplies by `weight`.
pub fn rms_norm(x: &Tensor, weight: &Tensor, epsilon: f64) -> Result<Tensor> {
    // SAFETY: tensors outlive the call; `out` has one place, written on success only.
    one(|out| unsafe { ffi::tm_rms_norm(ffi::raw(x), ffi::raw(weight), epsilon, out) })
}

/// `[.., 2i] -> [.., i]`: silu of the first half times the second.
pub fn swiglu(gate_up: &Tensor) -> Result<Tensor> {
    // SAFETY: the tensor outlives the call; `out` has one place, written on success only.
    one(|out| unsafe { ffi::tm_swiglu(ffi::raw(gate_up), out) })
}

/// Splits `[b, t, (h + 2k) d]` into queries `[b, h, t, d]`, keys and values `[b, k, t, d]`; rotates queries and keys by
/// the positions' cosines and sines `[t, d/2]` where given (half-split).
pub fn split_qkv(
    qkv: &Tensor,
    rotation: Option<(&Tensor, &Tensor)>,
    heads: i64,
    kv_heads: i64,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (cosines, sines) = rotation.map_or((ptr::null_mut(), ptr::null_mut()), |(c, s)| (ffi::raw(c), ffi::raw(s)));
    let mut out = [ptr::null_mut(); 3];
    // SAFETY: tensors outlive the call; `out` has the three places that are written, on success only.
    ffi::check(unsafe { ffi::tm_rotate_qkv(ffi::raw(qkv), cosines, sines, heads, kv_heads, out.as_mut_ptr()) })?;
    let [q, k, v] = out.map(ffi::adopt);
    Ok((q, k, v))
}

/// Causal attention over whole sequences: queries `[b, h, t, d]`, keys and values `[b, k, t, d]` -> `[b, t, h d]`.
pub fn causal_attention(q: &Tensor, k: &Tensor, v: &Tensor) -> Result<Tensor> {
    // SAFETY: tensors outlive the call; `out` has one place, written on success only.
    one(|out| unsafe { ffi::tm_causal_attention(ffi::raw(q), ffi::raw(k), ffi::raw(v), out) })
}

/// Sum over rows of the cross-entropy between `x [n, c] * weight [v, c]^T` and `targets [n]`, without those equal to `ignored`; `z` times
/// the square of a row's log-sum-exp comes on top (z-loss, arXiv 2204.02311).
pub fn cross_entropy_sum(x: &Tensor, weight: &Tensor, targets: &Tensor, ignored: i64, z: f64) -> Result<Tensor> {
    // SAFETY: tensors outlive the call; `out` has one place, written on success only.
    one(|out| unsafe { ffi::tm_cross_entropy_sum(ffi::raw(x), ffi::raw(weight), ffi::raw(targets), ignored, z, out) })
}

/// The cross-entropy of each row, `[n]` in float32, as [`cross_entropy_sum`] adds them up; 0 where the target is `ignored`.
pub fn token_losses(x: &Tensor, weight: &Tensor, targets: &Tensor, ignored: i64) -> Result<Tensor> {
    // SAFETY: tensors outlive the call; `out` has one place, written on success only.
    one(|out| unsafe { ffi::tm_token_losses(ffi::raw(x), ffi::raw(weight), ffi::raw(targets), ignored, out) })
}

fn one(call: impl FnOnce(*mut RawTensor) -> *mut std::ffi::c_char) -> Result<Tensor> {
    let mut out = ptr::null_mut();
    ffi::check(call(&mut out))?;
    Ok(ffi::adopt(out))
}

#[cfg(test)]
mod tests;
