//! libtorch beyond tch: what tch 0.24 lacks, behind safe functions over a C++ shim (`shim/cpu`).
//!
//! The only crate that says `unsafe`. Exceptions of C++ arrive as [`Error`].

pub mod autocast;
pub mod device;
mod error;
mod ffi;
pub mod fp8;
pub mod gradients;
pub mod nf4;
pub mod ops;
pub mod optimizer;
pub mod process;
pub mod ranks;
pub mod recompute;

pub use error::{Error, Result};
