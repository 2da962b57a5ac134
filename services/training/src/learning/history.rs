//! The loss curve of a run, bounded in size and free of times: it is part of checkpoints, whose bytes repeat.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Points of the training loss that a run keeps at most.
const POINTS: u64 = 400;

/// Figures after `step` steps. float32, because its decimal form survives JSON exactly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    /// Optimiser steps done.
    pub step: u64,
    /// Mean training loss (nats a token) since the point before.
    pub loss: f32,
    /// Loss on the validation split, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub validation_loss: Option<f32>,
    /// Learning rate of the last step.
    pub learning_rate: f32,
    /// Gradient norm of the last step, before clipping.
    pub gradient_norm: f32,
    /// Figures of the method: rewards of preferences.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub figures: BTreeMap<String, f32>,
}

/// The points so far, and the losses that wait for the next one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    points: Vec<Point>,
    pending_sum: f32,
    pending_count: u32,
}

impl History {
    /// The points, in order of steps.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Counts a step's figures; a point is made every so often, at the last of `steps`, and where there was a validation.
    pub(super) fn add(&mut self, point: Point, steps: u64) {
        self.pending_sum += point.loss;
        self.pending_count += 1;
        let due = point.step.is_multiple_of(steps.div_ceil(POINTS)) || point.step == steps;
        if due || point.validation_loss.is_some() {
            let loss = self.pending_sum / self.pending_count as f32;
            self.points.push(Point { loss, ..point });
            (self.pending_sum, self.pending_count) = (0.0, 0);
        }
    }
}
