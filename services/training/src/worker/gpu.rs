//! What the driver tells of the GPU that a run computes on: how busy it is, and what it could do at most (NVML, loaded where it is).

use std::ffi::OsStr;

use nvml_wrapper::{Device, Nvml, error::NvmlError};

/// Dense products in bfloat16, as NVIDIA's data sheets give them: (part of the product name, operations a second). The first that fits.
const PEAKS: [(&str, f64); 12] = [
    ("B200", 2250e12),
    ("H200", 989.4e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989.4e12),
    ("A100", 311.9e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("A10", 125e12),
    ("RTX 4090", 165.2e12),
    ("RTX 3090", 71e12),
];

/// The first GPU that this process may use.
pub(crate) struct Gpu {
    driver: Nvml,
    /// As CUDA_VISIBLE_DEVICES names it: a number, or an identity.
    which: String,
}

impl Gpu {
    /// The one that CUDA's first device is; none where the driver is not, or does not answer.
    pub(crate) fn first() -> Option<Self> {
        // The name without a number belongs to the development package.
        let driver = Nvml::builder().lib_path(OsStr::new("libnvidia-ml.so.1")).init().ok()?;
        let visible = std::env::var("CUDA_VISIBLE_DEVICES").unwrap_or_default();
        let gpu = Self { driver, which: first_of(&visible) };
        gpu.device().is_ok().then_some(gpu)
    }

    fn device(&self) -> Result<Device<'_>, NvmlError> {
        match self.which.parse() {
            Ok(index) => self.driver.device_by_index(index),
            Err(_) => self.driver.device_by_uuid(self.which.as_str()),
        }
    }

    /// The share of the last second or less in which no kernel ran.
    pub(crate) fn idle(&self) -> Option<f64> {
        Some(1.0 - f64::from(self.device().ok()?.utilization_rates().ok()?.gpu) / 100.0)
    }

    /// Operations a second that bfloat16 products could reach; none for a GPU that is not in the list.
    pub(crate) fn peak(&self) -> Option<f64> {
        peak_of(&self.device().ok()?.name().ok()?)
    }
}

/// What CUDA_VISIBLE_DEVICES shall show the nth process of several that share this machine's GPUs, one each: nothing where there are fewer.
pub(crate) fn visible_to(nth: usize) -> String {
    nth_of(std::env::var("CUDA_VISIBLE_DEVICES").ok().as_deref(), nth)
}

fn nth_of(visible: Option<&str>, nth: usize) -> String {
    match visible {
        // All are seen: a number that no GPU has is one of none.
        None => nth.to_string(),
        Some(visible) => visible.split(',').nth(nth).unwrap_or_default().trim().to_owned(),
    }
}

fn first_of(visible: &str) -> String {
    match visible.split(',').next().map(str::trim) {
        Some(first) if !first.is_empty() => first.to_owned(),
        _ => "0".to_owned(),
    }
}

fn peak_of(name: &str) -> Option<f64> {
    PEAKS.iter().find(|(part, _)| name.contains(part)).map(|(_, peak)| *peak)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_names_have_their_peaks() {
        for (name, peak) in [
            ("NVIDIA H100 80GB HBM3", Some(989.4e12)),
            ("NVIDIA H100 PCIe", Some(756e12)),
            ("NVIDIA A100-SXM4-40GB", Some(311.9e12)),
            ("NVIDIA L40S", Some(362e12)),
            ("NVIDIA L4", Some(121e12)),
            ("Tesla K80", None),
        ] {
            assert_eq!(peak_of(name), peak, "{name}");
        }
    }

    #[test]
    fn the_first_visible_device_is_taken() {
        assert_eq!([first_of(""), first_of("3,1"), first_of("GPU-1f")], ["0", "3", "GPU-1f"]);
    }

    #[test]
    fn processes_of_one_machine_see_a_gpu_each_or_none() {
        assert_eq!(
            [nth_of(None, 2), nth_of(Some("3, 1"), 1), nth_of(Some("3,1"), 2), nth_of(Some(""), 1)],
            ["2", "1", "", ""]
        );
    }
}
