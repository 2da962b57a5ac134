//! Our kernels for GPUs (`shim/cuda`, made by `make cuda`): each proves itself on the device before it is used.

use std::ffi::{CStr, c_void};
use std::ptr;

use crate::{Result, ffi};

/// The library that has them, loaded after `libtorch_cuda.so`.
pub(crate) const LIBRARY: &CStr = c"libtidemill_cuda.so";
/// What is proved, and used, together; in the order of the shim's `Family`.
const FAMILIES: [&str; 4] = ["rms_norm", "swiglu", "split_qkv", "cross_entropy"];

/// Uses the kernels that give, on this GPU, what libtorch's own operations give; says of each that is not used why.
pub(crate) fn take(device: i32) -> Vec<String> {
    let table = match open(LIBRARY) {
        Ok(table) => table,
        Err(error) => return vec![format!("no kernels of our own, run `make cuda`: {error}")],
    };
    let all = FAMILIES.iter().enumerate();
    let refused = all.filter_map(|(family, name)| {
        let taken = prove(table, family, device).and_then(|()| take_family(table, family));
        taken.err().map(|error| format!("the kernel of {name} is not used: {error}"))
    });
    refused.collect()
}

fn open(library: &CStr) -> Result<*const c_void> {
    let mut table = ptr::null();
    // SAFETY: the text outlives the call; the place is valid, and is written on success only.
    ffi::check(unsafe { ffi::tm_table_open(library.as_ptr(), &mut table) })?;
    Ok(table)
}

/// Compares a family of kernels with libtorch's own operations, on a GPU or, by -1, on the CPU.
fn prove(table: *const c_void, family: usize, device: i32) -> Result<()> {
    // SAFETY: the table is one of the shim's, whose kernels take tensors of that device; tables live as long as the process.
    ffi::check(unsafe { ffi::tm_table_prove(table, family as i32, device) })
}

fn take_family(table: *const c_void, family: usize) -> Result<()> {
    // SAFETY: the table is one of the shim's, and lives as long as the process.
    ffi::check(unsafe { ffi::tm_table_use(table, family as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same kernels, run by so many threads of the CPU a block.
    fn on_the_cpu(threads: i32, together: bool) -> Vec<Result<()>> {
        // SAFETY: takes numbers, and gives a table that lives as long as the process; no other test asks for it.
        let table = unsafe { ffi::tm_host_table(threads, i32::from(together)) };
        (0..FAMILIES.len()).map(|family| prove(table, family, -1)).collect()
    }

    #[test]
    fn kernels_give_what_libtorch_gives_and_one_that_does_not_is_refused() {
        for threads in [1, 3] {
            for (name, proved) in FAMILIES.iter().zip(on_the_cpu(threads, true)) {
                assert!(proved.is_ok(), "{name} by {threads} threads: {proved:?}");
            }
        }
        // Threads that do not add up what each has found: the norm and the loss are wrong then, the others need no sums.
        let refused = on_the_cpu(3, false);
        assert_eq!(refused.iter().map(Result::is_err).collect::<Vec<_>>(), [true, false, false, true]);
        let text = refused[0].as_ref().unwrap_err().to_string();
        assert!(text.contains("rms norm") && text.contains("differs"), "{text}");
    }

    #[test]
    fn without_the_library_there_is_nothing_to_use() {
        let error = open(c"libtidemill_absent.so").unwrap_err().to_string();
        assert!(error.contains("libtidemill_absent.so"), "{error}");
    }
}
