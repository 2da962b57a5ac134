//! Where tensors live: the CPU, or CUDA where its library can be loaded and finds a device.

use std::{ffi::CString, path::Path, sync::OnceLock};

use tch::Device;

use crate::{Error, Result, ffi, kernels};

/// The device this process computes on, and why, in words for the log.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The device.
    pub device: Device,
    /// What was tried and what came of it.
    pub reason: String,
    /// What it does without, for the log: each makes it slower, none wrong.
    pub warnings: Vec<String>,
}

/// The most bytes of a GPU that this process had at a time.
#[derive(Clone, Copy, Debug)]
pub struct Peak {
    /// By tensors.
    pub allocated: u64,
    /// By libtorch, which keeps what tensors leave.
    pub reserved: u64,
}

/// The peak since the device was chosen; none on the CPU.
pub fn peak_memory(device: Device) -> Result<Option<Peak>> {
    match device {
        Device::Cuda(index) => memory(index as i32, false).map(Some),
        _ => Ok(None),
    }
}

fn memory(index: i32, reset: bool) -> Result<Peak> {
    let (mut allocated, mut reserved) = (0, 0);
    // SAFETY: both places are valid during the call.
    ffi::check(unsafe { ffi::tm_cuda_memory(index, i32::from(reset), &mut allocated, &mut reserved) })?;
    Ok(Peak { allocated: allocated.unsigned_abs(), reserved: reserved.unsigned_abs() })
}

/// Chooses the device, once a process: the first call loads CUDA where a driver is present, later ones return the same.
pub fn select() -> Selection {
    static SELECTION: OnceLock<Selection> = OnceLock::new();
    SELECTION.get_or_init(choose).clone()
}

fn choose() -> Selection {
    let cpu = |reason: String| Selection { device: Device::Cpu, reason, warnings: Vec::new() };
    // libtorch_cuda.so is 1 GB: it is only touched where the kernel has a driver.
    if !Path::new("/dev/nvidiactl").exists() {
        return cpu("no NVIDIA driver on this machine (/dev/nvidiactl is absent)".to_owned());
    }
    if let Err(error) = open("libtorch_cuda.so") {
        return cpu(format!("libtorch_cuda.so cannot be loaded: {error}"));
    }
    match cuda_devices() {
        Ok(0) => cpu("libtorch_cuda.so is loaded but finds no usable device".to_owned()),
        Ok(count) => {
            let warnings = kernels::take(0);
            // What proofs needed is no part of what the process will need.
            let warnings = warnings.into_iter().chain(memory(0, true).err().map(|error| error.to_string())).collect();
            Selection { device: Device::Cuda(0), reason: format!("{count} CUDA device(s), using the first"), warnings }
        }
        Err(error) => cpu(format!("asking for CUDA devices failed: {error}")),
    }
}

fn open(library: &str) -> Result<()> {
    let library = CString::new(library).map_err(|_| Error::Shim("library name holds a NUL".to_owned()))?;
    // SAFETY: the pointer is a NUL-terminated string that outlives the call; the library is libtorch's own.
    ffi::check(unsafe { ffi::tm_open_library(library.as_ptr()) })
}

fn cuda_devices() -> Result<i64> {
    let mut count = 0;
    // SAFETY: `count` is a valid place for one i64 during the call.
    ffi::check(unsafe { ffi::tm_cuda_devices(&mut count) })?;
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_missing_is_named_in_the_error() {
        let error = open("libtidemill_absent.so").unwrap_err().to_string();
        assert!(error.contains("libtidemill_absent.so"), "{error}");
    }

    #[test]
    fn the_same_device_is_selected_every_time() {
        let (first, second) = (select(), select());
        assert_eq!(first.device, second.device);
        assert_eq!(first.reason, second.reason);
    }
}
