//! The learning rate over steps: linear warm-up, then a way down.

use std::f64::consts::PI;

use serde::Serialize;

/// Warm-up to a peak and a way down to a share of it at the last step.
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
    /// The way down.
    pub decay: Decay,
}

/// How the rate falls after the warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decay {
    /// Half a cosine.
    Cosine,
    /// A straight line.
    Linear,
    /// It does not.
    Constant,
    /// A straight line over the last steps; the peak until then.
    Last {
        /// How many.
        steps: u64,
    },
}

impl Schedule {
    /// The rate of the step that follows `done` steps.
    pub fn rate(&self, done: u64) -> f64 {
        if done < self.warmup_steps {
            return self.peak * (done + 1) as f64 / (self.warmup_steps + 1) as f64;
        }
        let span = (self.steps.saturating_sub(self.warmup_steps + 1)).max(1);
        let progress = ((done - self.warmup_steps) as f64 / span as f64).min(1.0);
        // 1 at the peak, 0 at the end.
        let height = match self.decay {
            Decay::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
            Decay::Linear => 1.0 - progress,
            Decay::Constant => 1.0,
            Decay::Last { steps } => {
                let left = self.steps.saturating_sub(done + 1) as f64;
                (left / steps.min(span).max(1) as f64).min(1.0)
            }
        };
        self.peak * (self.final_ratio + (1.0 - self.final_ratio) * height)
    }
}

#[cfg(test)]
mod tests {
    use super::{Decay, Schedule};

    #[test]
    fn the_rate_rises_to_the_peak_and_falls_to_its_share() {
        let schedule = Schedule { peak: 2.0, warmup_steps: 3, steps: 14, final_ratio: 0.1, decay: Decay::Cosine };
        let rates: Vec<f64> = (0..14).map(|done| schedule.rate(done)).collect();
        assert_eq!(rates[..4], [0.5, 1.0, 1.5, 2.0]);
        assert!(rates[3..].is_sorted_by(|a, b| a > b), "{rates:?}");
        assert!((rates[13] - 0.2).abs() < 1e-12 && (rates[8] - 1.1).abs() < 1e-12, "{rates:?}");
        assert_eq!(schedule.rate(20), rates[13]);
    }

    #[test]
    fn runs_shorter_than_their_warmup_only_rise() {
        let schedule = Schedule { peak: 1.0, warmup_steps: 10, steps: 4, final_ratio: 0.1, decay: Decay::Cosine };
        assert!((0..4).map(|done| schedule.rate(done)).is_sorted());
        assert_eq!(
            Schedule { peak: 1.0, warmup_steps: 0, steps: 1, final_ratio: 0.1, decay: Decay::Cosine }.rate(0),
            1.0
        );
    }

    #[test]
    fn the_other_ways_down_end_at_the_same_share() {
        let of = |decay| Schedule { peak: 2.0, warmup_steps: 2, steps: 12, final_ratio: 0.1, decay };
        let rates = |decay| (0..12).map(|done| of(decay).rate(done)).collect::<Vec<_>>();
        let linear = rates(Decay::Linear);
        assert!((linear[2] - linear[3] - (linear[10] - linear[11])).abs() < 1e-12 && (linear[11] - 0.2).abs() < 1e-12);
        assert!(rates(Decay::Constant)[2..].iter().all(|rate| *rate == 2.0));
        let stable = rates(Decay::Last { steps: 4 });
        assert!(stable[2..=7].iter().all(|rate| *rate == 2.0) && stable[8] < 2.0, "{stable:?}");
        assert!((stable[11] - 0.2).abs() < 1e-12, "{stable:?}");
    }
}
