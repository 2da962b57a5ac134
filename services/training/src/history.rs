//! The curve of a run: figures by step, thinned so that it stays small however long the run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_platform::worker::Report;
use tidemill_proto::training::v1::training_job;

/// Most points of a curve.
const MOST: usize = 500;

/// Figures at one step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct MetricPoint {
    /// Optimiser steps done.
    pub(crate) step: i64,
    /// Figures by name.
    pub(crate) metrics: BTreeMap<String, f64>,
}

impl From<MetricPoint> for training_job::MetricPoint {
    fn from(point: MetricPoint) -> Self {
        Self { step: point.step, metrics: point.metrics }
    }
}

impl From<training_job::MetricPoint> for MetricPoint {
    fn from(point: training_job::MetricPoint) -> Self {
        Self { step: point.step, metrics: point.metrics }
    }
}

/// The point in a worker's report, if it tells of steps.
pub(crate) fn point_of(report: &Report) -> Option<MetricPoint> {
    let tells = report.unit == "steps" && report.metrics.contains_key("loss");
    tells.then(|| MetricPoint { step: report.done, metrics: report.metrics.clone() })
}

/// Sorts points, drops what a restart repeated, and keeps at most 500: the last, every one with a validation loss where room is, and
/// others at even distances.
pub(crate) fn thin(mut points: Vec<MetricPoint>) -> Vec<MetricPoint> {
    // Of one step the last report stands, with the figures that only an earlier one had.
    points.sort_by_key(|point| point.step);
    let mut merged: Vec<MetricPoint> = Vec::new();
    for point in points {
        match merged.last_mut() {
            Some(last) if last.step == point.step => last.metrics.extend(point.metrics),
            _ => merged.push(point),
        }
    }
    if merged.len() <= MOST {
        return merged;
    }
    let special = |point: &MetricPoint| point.metrics.contains_key("validation_loss");
    let count = merged.iter().filter(|point| special(point)).count();
    let (specials, last) = (if count < MOST / 2 { count } else { 0 }, merged.len() - 1);
    let plain = merged.len() - specials;
    let room = MOST - specials - 1;
    let mut seen = 0;
    let mut kept = Vec::new();
    for (index, point) in merged.into_iter().enumerate() {
        if specials > 0 && special(&point) {
            kept.push(point);
            continue;
        }
        // Keeps `room` of `plain` points: those at which the share of points seen passes another whole part.
        let keep = (seen + 1) * room / plain > seen * room / plain;
        seen += 1;
        if keep || index == last {
            kept.push(point);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(step: i64, name: &str) -> MetricPoint {
        MetricPoint { step, metrics: [(name.to_owned(), step as f64)].into() }
    }

    #[test]
    fn a_long_curve_keeps_its_end_and_its_validation() {
        for total in [1, 499, 500, 501, 777, 5_000] {
            let mut points: Vec<_> = (1..=total).map(|step| point(step, "loss")).collect();
            points.extend((1..=total).filter(|step| step % 50 == 0).map(|step| point(step, "validation_loss")));
            let thinned = thin(points);
            assert!(thinned.len() <= MOST, "{total}: {}", thinned.len());
            assert!(thinned.len() >= 400.min(total as usize));
            assert!(thinned.is_sorted_by(|a, b| a.step < b.step));
            assert_eq!(thinned.last().unwrap().step, total);
            let validated = thinned.iter().filter(|point| point.metrics.contains_key("validation_loss")).count();
            assert_eq!(validated as i64, total / 50);
        }
    }

    #[test]
    fn a_restart_leaves_no_step_twice() {
        let points =
            vec![point(1, "loss"), point(2, "loss"), point(2, "validation_loss"), point(1, "loss"), point(2, "loss")];
        let thinned = thin(points);
        assert_eq!(thinned.iter().map(|point| point.step).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(thinned[1].metrics.len(), 2);
    }

    #[test]
    fn too_many_validations_are_thinned_like_the_rest() {
        let points = (1..=3_000).map(|step| point(step, "validation_loss")).collect();
        let thinned = thin(points);
        assert!(thinned.len() <= MOST);
        assert_eq!(thinned.last().unwrap().step, 3_000);
    }
}
