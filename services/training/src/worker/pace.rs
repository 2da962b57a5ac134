//! Tells how far a run is and how fast it goes, several times a second.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tch::Device;
use tidemill_platform::worker::{self, Report};

use super::gpu::Gpu;
use crate::learning::StepReport;

/// Between two reports.
const EVERY: Duration = Duration::from_millis(200);
/// The share of a new step in the running means.
const NEW: f64 = 0.1;

/// The pace of one run in this process.
pub(crate) struct Pace {
    total: u64,
    began: Instant,
    done_before: u64,
    reported: Option<Instant>,
    tokens_per_second: Option<f64>,
    step_seconds: Option<f64>,
    ranks: usize,
    device: Device,
    /// Absent on the CPU, and where the driver does not answer.
    gpu: Option<Gpu>,
    /// What checkpoints have held training up.
    stalled: Duration,
}

impl Pace {
    /// A run of `total` steps, of which `done_before` are done, on so many ranks.
    pub(crate) fn new(total: u64, done_before: u64, ranks: usize, device: Device) -> Self {
        Self {
            total,
            began: Instant::now(),
            done_before,
            reported: None,
            tokens_per_second: None,
            step_seconds: None,
            ranks,
            device,
            gpu: if device.is_cuda() { Gpu::first() } else { None },
            stalled: Duration::ZERO,
        }
    }

    /// Counts time that a checkpoint held training up.
    pub(crate) fn stalled(&mut self, time: Duration) {
        self.stalled += time;
    }

    /// Counts a step, and reports it if it is time, or if it has news that must not be missed.
    pub(crate) fn step(&mut self, step: &StepReport) {
        let rate = step.tokens as f64 / step.seconds.max(1e-9);
        let mean = self.tokens_per_second.map_or(rate, |mean| mean + NEW * (rate - mean));
        self.tokens_per_second = Some(mean);
        let seconds = self.step_seconds.map_or(step.seconds, |mean| mean + NEW * (step.seconds - mean));
        self.step_seconds = Some(seconds);
        let news = step.validation_loss.is_some() || step.step == self.total;
        if news || self.reported.is_none_or(|last| last.elapsed() >= EVERY) {
            self.reported = Some(Instant::now());
            worker::report(&self.report(step, mean));
        }
    }

    /// The most that tensors had on the GPU at a time; none on the CPU.
    fn gpu_memory(&self) -> Option<u64> {
        let peak = tidemill_torch::device::peak_memory(self.device);
        peak.ok().flatten().map(|peak| peak.allocated)
    }

    fn report(&self, step: &StepReport, tokens_per_second: f64) -> Report {
        let flops = step.flops / step.seconds.max(1e-9);
        let mut metrics = BTreeMap::from([
            ("loss".to_owned(), step.loss),
            ("learning_rate".to_owned(), step.learning_rate),
            ("gradient_norm".to_owned(), step.gradient_norm),
            ("tokens_per_second".to_owned(), tokens_per_second),
            ("load_seconds".to_owned(), step.load_seconds),
            ("update_seconds".to_owned(), step.update_seconds),
            ("model_flops_per_second".to_owned(), flops),
            ("ranks".to_owned(), self.ranks as f64),
            ("checkpoint_stall_seconds".to_owned(), self.stalled.as_secs_f64()),
        ]);
        if let Some(gpu) = &self.gpu {
            metrics.extend(gpu.idle().map(|idle| ("gpu_idle".to_owned(), idle)));
            metrics.extend(gpu.peak().map(|peak| ("mfu".to_owned(), flops / peak)));
        }
        metrics.extend(self.gpu_memory().map(|bytes| ("gpu_memory_bytes".to_owned(), bytes as f64)));
        metrics.extend(step.figures.clone());
        metrics.extend(self.step_seconds.map(|seconds| ("step_seconds".to_owned(), seconds)));
        metrics.extend(step.validation_loss.map(|loss| ("validation_loss".to_owned(), loss)));
        // Over the whole time here, so that validation and checkpoints count too.
        let each = self.began.elapsed().as_secs_f64() / (step.step - self.done_before) as f64;
        Report {
            phase: "training".to_owned(),
            done: step.step as i64,
            total: self.total as i64,
            unit: "steps".to_owned(),
            remaining_seconds: Some(each * (self.total - step.step) as f64),
            metrics,
        }
    }
}

/// Reports a phase without figures.
pub(crate) fn phase(name: &str) {
    worker::report(&Report { phase: name.to_owned(), ..Report::default() });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_left_counts_only_the_steps_done_here() {
        let pace = Pace { began: Instant::now() - Duration::from_secs(10), ..Pace::new(100, 40, 1, Device::Cpu) };
        let step = StepReport {
            step: 60,
            loss: 2.0,
            figures: BTreeMap::new(),
            validation_loss: None,
            gradient_norm: 1.0,
            learning_rate: 0.1,
            tokens: 10,
            seconds: 0.5,
            load_seconds: 0.0,
            update_seconds: 0.1,
            flops: 1e9,
        };
        let report = pace.report(&step, 20.0);
        let left = report.remaining_seconds.unwrap();
        assert!((20.0..20.5).contains(&left), "{left}");
        assert_eq!((report.done, report.total, report.metrics["tokens_per_second"]), (60, 100, 20.0));
        assert!(!report.metrics.contains_key("validation_loss"));
    }
}
