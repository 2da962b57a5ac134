//! The learning rate over steps: linear warm-up, then a cosine.

use std::f64::consts::PI;

use serde::Serialize;

/// Warm-up to a peak and a cosine down to a share of it at the last step.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Schedule {
    /// The peak.
    pub peak: f64,
    /// Steps until it.
    pub warmup_steps: u64,
    /// Steps in all.
    pub steps: u64,
    /// Last rate as a share of the peak.
    pub final_ratio: f64,
}

impl Schedule {
    /// The rate of the step that follows `done` steps.
    pub fn rate(&self, done: u64) -> f64 {
        if done < self.warmup_steps {
            return self.peak * (done + 1) as f64 / (self.warmup_steps + 1) as f64;
        }
        let span = (self.steps.saturating_sub(self.warmup_steps + 1)).max(1);
        let progress = ((done - self.warmup_steps) as f64 / span as f64).min(1.0);
        let share = self.final_ratio + (1.0 - self.final_ratio) * 0.5 * (1.0 + (PI * progress).cos());
        self.peak * share
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn the_rate_rises_to_the_peak_and_falls_to_its_share() {
        let schedule = Schedule { peak: 2.0, warmup_steps: 3, steps: 14, final_ratio: 0.1 };
        let rates: Vec<f64> = (0..14).map(|done| schedule.rate(done)).collect();
        assert_eq!(rates[..4], [0.5, 1.0, 1.5, 2.0]);
        assert!(rates[3..].is_sorted_by(|a, b| a > b), "{rates:?}");
        assert!((rates[13] - 0.2).abs() < 1e-12 && (rates[8] - 1.1).abs() < 1e-12, "{rates:?}");
        assert_eq!(schedule.rate(20), rates[13]);
    }

    #[test]
    fn runs_shorter_than_their_warmup_only_rise() {
        let schedule = Schedule { peak: 1.0, warmup_steps: 10, steps: 4, final_ratio: 0.1 };
        assert!((0..4).map(|done| schedule.rate(done)).is_sorted());
        assert_eq!(Schedule { peak: 1.0, warmup_steps: 0, steps: 1, final_ratio: 0.1 }.rate(0), 1.0);
    }
}
