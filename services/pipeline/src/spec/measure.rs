//! How a model is measured, and what it must reach.

use tidemill_proto::r#type::v1::objective_spec::RiskClass;
use tidemill_proto::r#type::v1::suite_spec::Baseline;
use tidemill_proto::r#type::v1::threshold::Bound;
use tidemill_proto::r#type::v1::{ObjectiveSpec, SamplingParameters, Split, SuiteSpec, Threshold};

use super::wrong::Wrong;

/// Most stop strings.
const MOST_STOPS: usize = 8;

/// Metrics of baselines, which exist only where the suite measures them.
const OF_BASELINES: [(&str, Baseline); 6] = [
    ("xz_bits_per_byte", Baseline::Xz),
    ("unigram_bits_per_byte", Baseline::Unigram),
    ("base_assistant_loss", Baseline::BaseModel),
    ("base_preference_accuracy", Baseline::BaseModel),
    ("rewards_accuracy", Baseline::BaseModel),
    ("log_ratio_margin", Baseline::BaseModel),
];

pub(super) fn check_suite(suite: &SuiteSpec, split: Option<&Split>, wrong: &mut Wrong) {
    let ratio = |share: fn(&Split) -> f64| split.is_none_or(|split| share(split) != 0.0);
    match suite.split.as_str() {
        "" | "test" => wrong.unless(ratio(|split| split.test_ratio), "evaluation.split", || {
            "it measures on the test split, and recipe.split.test_ratio is 0".to_owned()
        }),
        "validation" => wrong.unless(ratio(|split| split.validation_ratio), "evaluation.split", || {
            "it measures on the validation split, and recipe.split.validation_ratio is 0".to_owned()
        }),
        "train" => {}
        other => wrong.add("evaluation.split", format!("{other:?} should be test, validation or train")),
    }
    for (index, baseline) in suite.baselines.iter().enumerate() {
        wrong.choice::<Baseline>(&format!("evaluation.baselines[{index}]"), *baseline, false);
    }
    for (index, prompt) in suite.prompts.iter().enumerate() {
        wrong.unless(!prompt.is_empty(), &format!("evaluation.prompts[{index}]"), || "it is empty".to_owned());
    }
    if let Some(sampling) = &suite.sampling {
        check_sampling(sampling, wrong);
    }
    wrong.count("evaluation.max_documents", suite.max_documents.into());
    wrong.count("evaluation.max_completion_length", suite.max_completion_length.into());
}

fn check_sampling(sampling: &SamplingParameters, wrong: &mut Wrong) {
    let at = |name: &str| format!("evaluation.sampling.{name}");
    wrong.within(&at("temperature"), sampling.temperature.unwrap_or(1.0), 0.0, 2.0);
    wrong.count(&at("top_k"), sampling.top_k.unwrap_or(0).into());
    let top_p = sampling.top_p.unwrap_or(1.0);
    wrong.unless(top_p > 0.0 && top_p <= 1.0, &at("top_p"), || format!("{top_p} should be above 0 and at most 1"));
    let count = sampling.stop.len();
    wrong.unless(count <= MOST_STOPS, &at("stop"), || format!("{count} stop strings; use at most {MOST_STOPS}"));
    for (index, stop) in sampling.stop.iter().enumerate() {
        wrong.unless(!stop.is_empty(), &at(&format!("stop[{index}]")), || "it is empty".to_owned());
    }
    let most = sampling.max_tokens.unwrap_or(1);
    wrong.unless(most >= 1, &at("max_tokens"), || format!("{most} should be at least 1"));
}

pub(super) fn check_objective(objective: &ObjectiveSpec, suite: Option<&SuiteSpec>, wrong: &mut Wrong) {
    wrong.text("objective.task", &objective.task);
    wrong.choice::<RiskClass>("objective.risk_class", objective.risk_class, true);
    wrong.unless(!objective.thresholds.is_empty(), "objective.thresholds", || {
        "give at least one; a gate without any would let everything pass".to_owned()
    });
    for (index, threshold) in objective.thresholds.iter().enumerate() {
        check_threshold(&format!("objective.thresholds[{index}]"), threshold, suite, wrong);
    }
}

fn check_threshold(field: &str, threshold: &Threshold, suite: Option<&SuiteSpec>, wrong: &mut Wrong) {
    let metric = format!("{field}.metric");
    wrong.text(&metric, &threshold.metric);
    check_measured(&metric, &threshold.metric, suite, wrong);
    match &threshold.bound {
        None => wrong.add(field, "give one of max, min, below_metric, above_metric, max_champion_ratio"),
        Some(Bound::Max(value)) => check_finite(&format!("{field}.max"), *value, wrong),
        Some(Bound::Min(value)) => check_finite(&format!("{field}.min"), *value, wrong),
        Some(Bound::BelowMetric(other)) => {
            check_other(&format!("{field}.below_metric"), other, threshold, suite, wrong)
        }
        Some(Bound::AboveMetric(other)) => {
            check_other(&format!("{field}.above_metric"), other, threshold, suite, wrong)
        }
        Some(Bound::MaxChampionRatio(ratio)) => {
            wrong.unless(ratio.is_finite() && *ratio > 0.0, &format!("{field}.max_champion_ratio"), || {
                format!("{ratio} should be a positive number")
            });
        }
    }
}

fn check_other(field: &str, other: &str, threshold: &Threshold, suite: Option<&SuiteSpec>, wrong: &mut Wrong) {
    wrong.text(field, other);
    wrong.unless(other.is_empty() || *other != threshold.metric, field, || {
        "it is the metric itself; name another one".to_owned()
    });
    check_measured(field, other, suite, wrong);
}

fn check_finite(field: &str, value: f64, wrong: &mut Wrong) {
    wrong.unless(value.is_finite(), field, || format!("{value} should be a finite number"));
}

/// A baseline's metric exists only where the suite measures the baseline.
fn check_measured(field: &str, metric: &str, suite: Option<&SuiteSpec>, wrong: &mut Wrong) {
    let Some((_, baseline)) = OF_BASELINES.iter().find(|(name, _)| *name == metric) else { return };
    let measured = suite.is_none_or(|suite| suite.baselines().any(|present| present == *baseline));
    wrong.unless(measured, field, || {
        format!("{metric} is not measured; add {} to evaluation.baselines", baseline.as_str_name())
    });
}
