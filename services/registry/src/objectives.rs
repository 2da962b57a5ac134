//! Objectives: what a model must reach. They never change; a changed one is a new one.

use tidemill_platform::Platform;
use tidemill_proto::registry::v1::Objective;
use tidemill_proto::r#type::v1::ObjectiveSpec;
use tidemill_proto::r#type::v1::objective_spec::RiskClass;
use tidemill_proto::r#type::v1::threshold::Bound;
use tidemill_resources::Collection;

use crate::error::Result;
use crate::models::id_or_new;
use crate::violations::Violations;

/// Objectives. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Objectives {
    pub(crate) collection: Collection<Objective>,
}

impl Objectives {
    pub(crate) fn new(platform: &Platform) -> Self {
        Self { collection: platform.collection() }
    }

    /// Creates an objective.
    pub(crate) async fn create(&self, mut objective: Objective, id: &str, request_id: &str) -> Result<Objective> {
        let id = id_or_new(id, request_id);
        objective.name = format!("objectives/{id}");
        let mut wrong = Violations::default();
        wrong.id("objective_id", &id);
        match &objective.spec {
            Some(spec) => validate(spec, &mut wrong),
            None => wrong.add("objective.spec", "it is required"),
        }
        wrong.check()?;
        Ok(self.collection.create(&objective, Some(request_id), Vec::new()).await?.0)
    }
}

fn validate(spec: &ObjectiveSpec, wrong: &mut Violations) {
    wrong.required("objective.spec.task", &spec.task);
    if RiskClass::try_from(spec.risk_class).is_err() {
        wrong.add("objective.spec.risk_class", format!("{} is not a risk class", spec.risk_class));
    }
    if spec.thresholds.is_empty() {
        wrong.add("objective.spec.thresholds", "give at least one; a gate without any would let everything pass");
    }
    for (index, threshold) in spec.thresholds.iter().enumerate() {
        let field = format!("objective.spec.thresholds[{index}]");
        wrong.required(&format!("{field}.metric"), &threshold.metric);
        match &threshold.bound {
            None => wrong.add(&field, "give one of max, min, below_metric, max_champion_ratio"),
            Some(Bound::Max(value) | Bound::Min(value)) if !value.is_finite() => {
                wrong.add(&field, format!("the bound is {value}; give a finite number"));
            }
            Some(Bound::MaxChampionRatio(ratio)) if !(ratio.is_finite() && *ratio > 0.0) => {
                wrong.add(format!("{field}.max_champion_ratio"), format!("{ratio} should be a finite number above 0"));
            }
            Some(Bound::BelowMetric(other)) if other.is_empty() || *other == threshold.metric => {
                wrong.add(format!("{field}.below_metric"), "name another metric of the same evaluation");
            }
            Some(_) => {}
        }
    }
}
