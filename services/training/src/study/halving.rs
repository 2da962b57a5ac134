//! Successive halving in the order of trials: who goes on at a rung is decided by the trial itself and those before it, never by the clock.

use tidemill_proto::training::v1::SuccessiveHalving;
use tidemill_proto::r#type::v1::TrainingSpec;

/// Of so many trials one goes on, where the study does not say.
const REDUCTION: i64 = 4;

/// Measurements of a run that its curve surely keeps (`history::thin`).
const MOST_MEASUREMENTS: i64 = 200;

/// The rule of a study.
#[derive(Clone, Copy, Debug)]
pub(super) struct Halving {
    factor: i64,
    min_steps: i64,
}

impl From<&SuccessiveHalving> for Halving {
    fn from(asked: &SuccessiveHalving) -> Self {
        let factor = if asked.reduction_factor == 0 { REDUCTION } else { asked.reduction_factor.into() };
        Self { factor: factor.max(2), min_steps: asked.min_steps.max(1) }
    }
}

impl Halving {
    /// The steps of a run's rungs: measurements at which it may be stopped, in order, all before its end.
    pub(super) fn rungs(&self, spec: &TrainingSpec) -> Vec<i64> {
        let every = measured_every(spec);
        let targets = std::iter::successors(Some(self.min_steps), |target| target.checked_mul(self.factor));
        // The first measurement at or after each target.
        let measured = targets.map(|target| (target.saturating_add(every - 1) / every).saturating_mul(every));
        measured.take_while(|step| *step < spec.steps).collect()
    }

    /// Whether a trial with this cost at a rung goes on, beside the costs of other trials there: as Optuna's SuccessiveHalvingPruner
    /// decides. Of few trials the best goes on.
    pub(super) fn goes_on(&self, cost: f64, others: &[f64]) -> bool {
        let count = others.len() + 1;
        let places = (count / self.factor as usize).max(1);
        others.iter().filter(|other| **other < cost).count() < places
    }

    /// Why a run cannot be stopped as asked, if it cannot.
    pub(super) fn problem(&self, spec: &TrainingSpec) -> Option<String> {
        let (every, min) = (measured_every(spec), self.min_steps);
        if min < every {
            return Some(format!(
                "{min} is less than the {every} steps between measurements; raise it, or lower spec.validate_every_steps"
            ));
        }
        if self.rungs(spec).is_empty() {
            return Some(format!("{min} is not below the {} steps of a trial: none could be stopped", spec.steps));
        }
        let measurements = spec.steps / every;
        (measurements > MOST_MEASUREMENTS).then(|| {
            format!(
                "needs every measurement of the curve, which keeps {MOST_MEASUREMENTS}, and spec.validate_every_steps asks for {measurements}"
            )
        })
    }
}

/// Steps between measurements on the validation split.
fn measured_every(spec: &TrainingSpec) -> i64 {
    match spec.validate_every_steps {
        0 => (spec.steps / 10).max(1),
        every => every.max(1),
    }
}
