//! What metrics tell of a run, from what its worker reports.

use std::time::Instant;

use tidemill_platform::worker::Report;

/// The gauges of one run in this process; told under the model's id, of which there are few.
pub(crate) struct Gauges {
    model: String,
    began: Instant,
    /// The furthest step known.
    furthest: i64,
    /// Seconds in steps that brought the run further.
    useful: f64,
}

impl Gauges {
    /// A run of a model (`models/sotu`) that is at a step already.
    pub(crate) fn new(model: &str, step: i64) -> Self {
        let model = tidemill_proto::names::last_id(model).to_owned();
        Self { model, began: Instant::now(), furthest: step, useful: 0.0 }
    }

    /// Takes a report in.
    pub(crate) fn report(&mut self, report: &Report) {
        let figures = [
            ("loss", "tidemill_training_loss"),
            ("validation_loss", "tidemill_training_validation_loss"),
            ("learning_rate", "tidemill_training_learning_rate"),
            ("gradient_norm", "tidemill_training_gradient_norm"),
            ("tokens_per_second", "tidemill_training_tokens_per_second"),
            ("step_seconds", "tidemill_training_step_seconds"),
            ("load_seconds", "tidemill_training_load_seconds"),
            ("update_seconds", "tidemill_training_update_seconds"),
            ("model_flops_per_second", "tidemill_training_model_flops_per_second"),
            ("mfu", "tidemill_training_mfu_ratio"),
            ("gpu_idle", "tidemill_training_gpu_idle_ratio"),
            ("gpu_memory_bytes", "tidemill_training_gpu_memory_bytes"),
            ("checkpoint_stall_seconds", "tidemill_training_checkpoint_stall_seconds"),
        ];
        for (figure, gauge) in figures {
            if let Some(value) = report.metrics.get(figure) {
                self.set(gauge, *value);
            }
        }
        let further = (report.done - self.furthest).max(0);
        if further > 0 {
            self.furthest = report.done;
            self.useful += further as f64 * report.metrics.get("step_seconds").copied().unwrap_or_default();
            metrics::counter!("tidemill_training_steps_total", "model" => self.model.clone())
                .increment(further.unsigned_abs());
        }
        self.set("tidemill_training_goodput_ratio", self.goodput());
    }

    /// Share of the time that went into steps that counted: not into starting, saving, validating, or doing steps again.
    pub(crate) fn goodput(&self) -> f64 {
        (self.useful / self.began.elapsed().as_secs_f64().max(1e-9)).min(1.0)
    }

    fn set(&self, gauge: &'static str, value: f64) {
        metrics::gauge!(gauge, "model" => self.model.clone()).set(value);
    }
}

/// A run that has ended learns nothing.
impl Drop for Gauges {
    fn drop(&mut self) {
        self.set("tidemill_training_tokens_per_second", 0.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn steps_taken_again_are_no_goodput() {
        let mut gauges = Gauges::new("models/a", 10);
        gauges.began = Instant::now() - Duration::from_secs(20);
        let report = |done| Report { done, metrics: [("step_seconds".to_owned(), 1.0)].into(), ..Report::default() };
        for done in [12, 15, 11, 15] {
            gauges.report(&report(done));
        }
        assert_eq!((gauges.furthest, gauges.useful), (15, 5.0));
        assert!((0.2..0.26).contains(&gauges.goodput()), "{}", gauges.goodput());
    }
}
