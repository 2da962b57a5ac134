//! Where tensors live: the CPU, or CUDA where its library can be loaded and finds a device.

use std::{ffi::CString, path::Path, sync::OnceLock};

use tch::Device;

use crate::{Error, Result, ffi};

/// The device this process computes on, and why, in words for the log.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The device.
    pub device: Device,
    /// What was tried and what came of it.
    pub reason: String,
}

/// Chooses the device, once a process: the first call loads CUDA where a driver is present, later ones return the same.
pub fn select() -> Selection {
    static SELECTION: OnceLock<Selection> = OnceLock::new();
    SELECTION.get_or_init(choose).clone()
}

fn choose() -> Selection {
    let cpu = |reason: String| Selection { device: Device::Cpu, reason };
    // libtorch_cuda.so is 1 GB: it is only touched where the kernel has a driver.
    if !Path::new("/dev/nvidiactl").exists() {
        return cpu("no NVIDIA driver on this machine (/dev/nvidiactl is absent)".to_owned());
    }
    if let Err(error) = open("libtorch_cuda.so") {
        return cpu(format!("libtorch_cuda.so cannot be loaded: {error}"));
    }
    match cuda_devices() {
        Ok(0) => cpu("libtorch_cuda.so is loaded but finds no usable device".to_owned()),
        Ok(count) => Selection { device: Device::Cuda(0), reason: format!("{count} CUDA device(s), using the first") },
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
