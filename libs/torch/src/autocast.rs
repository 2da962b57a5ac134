//! Mixed precision: matrix products in bfloat16 or float8, everything else in float32.

use tch::Device;

use crate::{Result, ffi};

/// Runs `body` with matrix products in bfloat16 on `device`; weights, sums and norms stay float32.
///
/// On the CPU the products of [`crate::ops`] are meant; on CUDA, libtorch's autocast.
pub fn bfloat16<T>(device: Device, body: impl FnOnce() -> T) -> Result<T> {
    let _guard = if device.is_cuda() {
        // SAFETY: takes no pointers; changes only this thread's autocast state, which the guard restores.
        ffi::check(unsafe { ffi::tm_autocast_enter(1) })?;
        Guard::Cuda
    } else {
        // SAFETY: takes no pointers; sets a flag of this thread, which the guard restores.
        Guard::Cpu(unsafe { ffi::tm_set_bfloat16(1) })
    };
    Ok(body())
}

/// As [`bfloat16`], with layers inside a network ([`crate::fp8::linear`]) in float8.
pub fn fp8<T>(device: Device, body: impl FnOnce() -> T) -> Result<T> {
    bfloat16(device, || {
        // SAFETY: takes no pointers; sets a flag of this thread, which the guard restores.
        let _guard = Guard::Fp8(unsafe { ffi::tm_set_fp8(1) });
        body()
    })
}

enum Guard {
    Cpu(i32),
    Cuda,
    Fp8(i32),
}

impl Drop for Guard {
    fn drop(&mut self) {
        match self {
            // SAFETY: takes no pointers; restores what the flag was.
            Self::Cpu(before) => drop(unsafe { ffi::tm_set_bfloat16(*before) }),
            // SAFETY: takes no pointers; restores what the flag was.
            Self::Fp8(before) => drop(unsafe { ffi::tm_set_fp8(*before) }),
            // SAFETY: takes no pointers; the matching enter succeeded on this thread, so it cannot fail.
            Self::Cuda => drop(ffi::check(unsafe { ffi::tm_autocast_exit(1) })),
        }
    }
}
