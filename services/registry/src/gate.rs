//! The gate: whether figures reach an objective. Pure; says why in words, with the figures.
//!
//! A threshold holds only on figures that were measured: a missing one, or one that is not a finite number, does not hold. The
//! champion is compared on equal ground alone: both measured on the same dataset by the same suite (the pipeline service measures
//! the champion again where the data has changed). Figures of different data would let an easier test set pass for a better model.

use tidemill_proto::registry::v1::EvaluationResult;
use tidemill_proto::r#type::v1::threshold::Bound;
use tidemill_proto::r#type::v1::{ObjectiveSpec, Threshold};

/// What became of one threshold.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Finding {
    /// The metric bounded.
    pub(crate) metric: String,
    /// Whether the threshold holds.
    pub(crate) holds: bool,
    /// Why, in words, with the figures.
    pub(crate) text: String,
}

/// The version that an alias points to, with all its figures.
#[derive(Clone, Copy)]
pub(crate) struct Champion<'a> {
    /// `models/{model}/versions/{version}`.
    pub(crate) name: &'a str,
    /// Its digest.
    pub(crate) digest: &'a str,
    /// Its figures, newest last.
    pub(crate) evaluations: &'a [EvaluationResult],
}

/// The newest figures of a digest.
pub(crate) fn newest<'a>(evaluations: &'a [EvaluationResult], digest: &str) -> Option<&'a EvaluationResult> {
    evaluations.iter().rev().find(|result| result.model_digest == digest)
}

/// Judges a candidate by its figures: one finding a threshold, in their order.
pub(crate) fn judge(
    objective: &ObjectiveSpec,
    candidate: Option<&EvaluationResult>,
    champion: Option<Champion<'_>>,
) -> Vec<Finding> {
    objective
        .thresholds
        .iter()
        .map(|threshold| {
            let (holds, text) = match bound(threshold, candidate, champion) {
                Ok(text) => (true, format!("{text}: holds")),
                Err(text) => (false, format!("{text}: does not hold")),
            };
            Finding { metric: threshold.metric.clone(), holds, text }
        })
        .collect()
}

fn bound(
    threshold: &Threshold,
    candidate: Option<&EvaluationResult>,
    champion: Option<Champion<'_>>,
) -> Result<String, String> {
    let metric = threshold.metric.as_str();
    let candidate = candidate.ok_or_else(|| format!("{metric} was not measured: the candidate has no evaluation"))?;
    let value = figure(candidate, metric)?;
    match &threshold.bound {
        None => Err(format!("{metric} {value} has no bound to hold")),
        Some(Bound::Max(max)) => said(value <= *max, format!("{metric} {value} is"), &format!("at most {max}")),
        Some(Bound::Min(min)) => said(value >= *min, format!("{metric} {value} is"), &format!("at least {min}")),
        Some(Bound::BelowMetric(other)) => {
            let limit = figure(candidate, other)?;
            said(value < limit, format!("{metric} {value} is"), &format!("below {other} {limit}"))
        }
        Some(Bound::AboveMetric(other)) => {
            let limit = figure(candidate, other)?;
            said(value > limit, format!("{metric} {value} is"), &format!("above {other} {limit}"))
        }
        Some(Bound::MaxChampionRatio(ratio)) => against_champion(metric, value, *ratio, candidate, champion),
    }
}

fn against_champion(
    metric: &str,
    value: f64,
    ratio: f64,
    candidate: &EvaluationResult,
    champion: Option<Champion<'_>>,
) -> Result<String, String> {
    let Some(champion) = champion else {
        return Ok(format!("{metric} {value} has no champion to compare with"));
    };
    let of_champion = champion.evaluations.iter().rev().filter(|result| result.model_digest == champion.digest);
    let equal_ground = |result: &&EvaluationResult| {
        result.dataset_digest == candidate.dataset_digest && result.suite_digest == candidate.suite_digest
    };
    let result = of_champion.clone().find(equal_ground).ok_or_else(|| {
        let elsewhere = match of_champion.clone().next() {
            Some(other) => format!(" (it was on {} by suite {})", other.dataset_digest, other.suite_digest),
            None => String::new(),
        };
        format!(
            "{metric} {value} cannot be compared: the champion {} was not measured on {} by suite {}{elsewhere}; evaluate it there",
            champion.name, candidate.dataset_digest, candidate.suite_digest
        )
    })?;
    let theirs = figure(result, metric).map_err(|text| format!("{text} on the champion {}", champion.name))?;
    let limit = ratio * theirs;
    let bound = format!("at most {ratio} times the champion's {theirs} ({limit}) on the same data");
    said(value <= limit, format!("{metric} {value} is"), &bound)
}

/// A figure that was measured.
fn figure(result: &EvaluationResult, metric: &str) -> Result<f64, String> {
    match result.metrics.get(metric) {
        None => Err(format!("{metric} was not measured by {}", result.evaluation)),
        Some(value) if !value.is_finite() => Err(format!("{metric} is {value}, which is not a figure")),
        Some(value) => Ok(*value),
    }
}

fn said(holds: bool, subject: String, bound: &str) -> Result<String, String> {
    if holds { Ok(format!("{subject} {bound}")) } else { Err(format!("{subject} not {bound}")) }
}

#[cfg(test)]
mod tests;
