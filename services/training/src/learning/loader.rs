//! Batches by step number: what a step sees is a function of the data, the spec and the step, so a run resumes anywhere.

use tch::{Device, Tensor};
use tidemill_dataset::{Sampler, Tokens};
use tidemill_models::IGNORED;

use super::Result;

/// Samples by position, counted over all epochs.
pub trait Samples: Send {
    /// Fills a window of tokens and what is to follow each of them; [`IGNORED`] targets are not learned.
    fn fill(&self, position: u64, inputs: &mut [i64], targets: &mut [i64]);
}

/// Windows of a packed token stream in a keyed order; every token is learned.
#[derive(Debug)]
pub struct Packed {
    tokens: Tokens,
    sampler: Sampler,
}

impl Packed {
    /// Windows of `window` tokens, their order keyed by `seed`; refuses a stream shorter than one window.
    pub fn new(tokens: Tokens, window: usize, seed: u64) -> Result<Self> {
        let sampler = Sampler::new(tokens.len() as u64, window as u64, seed)?;
        Ok(Self { tokens, sampler })
    }
}

impl Samples for Packed {
    fn fill(&self, position: u64, inputs: &mut [i64], targets: &mut [i64]) {
        let start = self.sampler.start(position) as usize;
        self.tokens.copy_to(start, inputs);
        self.tokens.copy_to(start + 1, targets);
    }
}

/// One forward pass: ids and targets [batch, time].
pub(super) struct MicroBatch {
    pub(super) inputs_bt: Tensor,
    pub(super) targets_bt: Tensor,
}

/// Cuts steps into micro-batches.
pub(super) struct Loader {
    pub(super) samples: Box<dyn Samples>,
    pub(super) batch_size: usize,
    pub(super) accumulation: usize,
    pub(super) window: usize,
    pub(super) device: Device,
}

impl Loader {
    /// The micro-batches of the step that follows `done` steps, and how many targets they have to learn.
    pub(super) fn step(&self, done: u64) -> Result<(Vec<MicroBatch>, usize)> {
        let size = self.batch_size * self.window;
        let (mut inputs, mut targets) = (vec![0i64; size], vec![0i64; size]);
        let mut batches = Vec::with_capacity(self.accumulation);
        let mut supervised = 0;
        let mut position = done * (self.batch_size * self.accumulation) as u64;
        for _ in 0..self.accumulation {
            for (inputs, targets) in inputs.chunks_mut(self.window).zip(targets.chunks_mut(self.window)) {
                self.samples.fill(position, inputs, targets);
                position += 1;
            }
            supervised += targets.iter().filter(|target| **target != IGNORED).count();
            batches.push(MicroBatch { inputs_bt: self.tensor(&inputs)?, targets_bt: self.tensor(&targets)? });
        }
        Ok((batches, supervised))
    }

    /// Consecutive windows of a stream, for validation: every token but the first is predicted once.
    pub(super) fn windows(&self, tokens: &Tokens, start: usize, count: usize) -> Result<MicroBatch> {
        let size = count * self.window;
        let (mut inputs, mut targets) = (vec![0i64; size], vec![IGNORED; size]);
        let known = (tokens.len() - 1).saturating_sub(start).min(size);
        tokens.copy_to(start, &mut inputs[..known]);
        tokens.copy_to(start + 1, &mut targets[..known]);
        let shape = [count as i64, self.window as i64];
        let tensor = |ids: &[i64]| Tensor::f_from_slice(ids)?.f_view(shape)?.f_to_device(self.device);
        Ok(MicroBatch { inputs_bt: tensor(&inputs)?, targets_bt: tensor(&targets)? })
    }

    fn tensor(&self, ids: &[i64]) -> Result<Tensor> {
        let shape = [self.batch_size as i64, self.window as i64];
        Ok(Tensor::f_from_slice(ids)?.f_view(shape)?.f_to_device(self.device)?)
    }
}
