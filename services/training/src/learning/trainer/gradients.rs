//! The passes of a step: forward and backward over its micro-batches, and what all ranks found in them.

use std::collections::BTreeMap;

use super::Trainer;
use crate::learning::{Error, Result, drawn::Figures, loader::MicroBatch};

impl Trainer {
    /// Leaves the gradients of a step's micro-batches, which weigh so much over all ranks; gives the loss, and adds to the sums of figures.
    pub(super) fn gradients(&self, batches: &[(u64, MicroBatch)], weight: f64, figures: &mut Figures) -> Result<f64> {
        let mut loss = 0.0;
        let mut sums = Figures::new();
        for (nth, (index, batch)) in self.rounds(batches) {
            // What is dropped depends on seed and place alone: a run that resumes here drops the same.
            tch::manual_seed(draw(self.spec.seed, self.step, *index));
            let outcome = self.learner().outcome(batch)?;
            // Normalised by what all micro-batches of all ranks hold: how a step is cut does not change what it learns.
            let part = outcome.loss.f_div_scalar(weight)?;
            if let Some(buckets) = self.buckets.as_ref().filter(|_| nth + 1 == batches.len()) {
                buckets.prepare(&part)?;
            }
            if nth >= batches.len() {
                part.f_mul_scalar(0.0)?.f_backward()?;
                continue;
            }
            part.f_backward()?;
            loss += part.f_double_value(&[])?;
            add(&mut sums, outcome.figures);
        }
        let loss = self.summed(loss, &mut sums)?;
        if !loss.is_finite() {
            return Err(Error::NotFinite { what: "the loss", step: self.step, value: loss });
        }
        add(figures, sums);
        Ok(loss)
    }

    /// The micro-batches in their order. Where weights are spread, each rank runs as many as any other: one that has fewer runs one again,
    /// for nothing but to stand beside the others.
    fn rounds<'a>(&self, batches: &'a [(u64, MicroBatch)]) -> impl Iterator<Item = (usize, &'a (u64, MicroBatch))> {
        let most = self.spec.micro_batches().div_ceil(self.world.size());
        let rounds = if self.spread.is_empty() { batches.len() } else { most };
        batches.iter().cycle().take(rounds).enumerate()
    }

    /// Loss and figures of all ranks together.
    fn summed(&self, loss: f64, sums: &mut Figures) -> Result<f64> {
        let figures = sums.values().flat_map(|(sum, count)| [*sum, *count]);
        let all = self.world.sum(&std::iter::once(loss).chain(figures).collect::<Vec<_>>())?;
        for (pair, all) in sums.values_mut().zip(all[1..].chunks_exact(2)) {
            *pair = (all[0], all[1]);
        }
        Ok(all[0])
    }
}

/// Adds figures to sums of them.
pub(super) fn add(sums: &mut Figures, figures: Figures) {
    for (name, (sum, count)) in figures {
        let all = sums.entry(name).or_default();
        *all = (all.0 + sum, all.1 + count);
    }
}

/// Means of figures, with a prefix to their names.
pub(super) fn means(sums: Figures, prefix: &str) -> BTreeMap<String, f64> {
    let counted = sums.into_iter().filter(|(_, (_, count))| *count > 0.0);
    counted.map(|(name, (sum, count))| (format!("{prefix}{name}"), sum / count)).collect()
}

/// The seed of one micro-batch.
fn draw(seed: u64, step: u64, index: u64) -> i64 {
    let key = [seed, step, index].map(u64::to_le_bytes).concat();
    xxhash_rust::xxh3::xxh3_64(&key).cast_signed()
}
