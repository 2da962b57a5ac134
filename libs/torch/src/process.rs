//! Switches of the whole process: determinism and the number of threads.

use crate::{Result, ffi};

/// Makes libtorch use only algorithms whose result does not vary from run to run; an operation without one fails.
pub fn set_deterministic(on: bool) -> Result<()> {
    // SAFETY: takes no pointers; sets flags of libtorch's global context.
    ffi::check(unsafe { ffi::tm_set_deterministic(i32::from(on)) })
}

/// Sets how many threads one operation may use. Sums are split by it, so the same number gives the same bits.
pub fn set_threads(threads: i32) {
    tch::set_num_threads(threads.max(1));
}

/// How many threads one operation may use.
pub fn threads() -> i32 {
    tch::get_num_threads()
}
