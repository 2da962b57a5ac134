//! libtorch beyond tch: what tch 0.24 lacks, behind safe functions over a C++ shim (`shim/cpu`, and on
//! GPUs `shim/cuda`).
//!
//! The only crate that says `unsafe`. Exceptions of C++ arrive as [`Error`].

#[cfg(test)]
mod alone;
pub mod autocast;
pub mod device;
mod error;
mod ffi;
pub mod fp8;
pub mod gradients;
mod kernels;
pub mod nf4;
pub mod ops;
pub mod optimizer;
pub mod process;
pub mod ranks;
pub mod recompute;
pub mod storage;

pub use error::{Error, Result};
