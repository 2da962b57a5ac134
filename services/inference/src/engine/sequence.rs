//! One sequence: its prompt is read in pieces, then a token is written at each step.

use std::panic::AssertUnwindSafe;

use tidemill_models::sampling::Sampler;
use tokio::sync::mpsc;

use super::phase::Phase;
use super::queue::Entry;
use super::{Decoder, Failure, Job, Step};

pub(super) struct Sequence<C> {
    job: Job,
    out: mpsc::Sender<Result<Step, Failure>>,
    sampler: Sampler,
    prefill: usize,
    cache: Option<C>,
    /// Tokens of the prompt that were read.
    read: usize,
    written: usize,
    last: u32,
    logits: Vec<f32>,
    /// What it does now.
    phase: Phase,
}

impl<C> Sequence<C> {
    pub(super) fn new(Entry { job, out, waiting }: Entry, prefill: usize) -> Self {
        drop(waiting);
        let phase = Phase::prefill(&job.span);
        let sampler = Sampler::new(job.sampling, job.seed);
        Self { job, out, sampler, prefill, cache: None, read: 0, written: 0, last: 0, logits: Vec::new(), phase }
    }

    /// Tokens in its cache.
    pub(super) fn held(&self) -> usize {
        self.read + self.written
    }

    /// Goes on by one step; false at the end, which was then sent.
    pub(super) fn step<D: Decoder<Cache = C>>(&mut self, decoder: &D) -> bool {
        if self.out.is_closed() {
            return false;
        }
        let failure = match std::panic::catch_unwind(AssertUnwindSafe(|| self.advance(decoder))) {
            Ok(Ok(more)) => return more,
            Ok(Err(failure)) => failure,
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
                Failure(format!("the model panicked: {text}"))
            }
        };
        self.send(Err(failure));
        false
    }

    fn advance<D: Decoder<Cache = C>>(&mut self, decoder: &D) -> Result<bool, Failure> {
        let cache = match &mut self.cache {
            Some(cache) => cache,
            none => none.insert(decoder.cache(self.job.prompt.len() + self.job.max_tokens)?),
        };
        if self.read < self.job.prompt.len() {
            let end = self.job.prompt.len().min(self.read + self.prefill);
            decoder.read(cache, &self.job.prompt[self.read..end], &mut self.logits)?;
            self.read = end;
            if self.read < self.job.prompt.len() {
                return Ok(true);
            }
        } else {
            decoder.read(cache, &[self.last], &mut self.logits)?;
        }
        let drawn = self.sampler.draw(&self.logits, self.written as u64);
        self.last = drawn.map_err(|bad| Failure(bad.to_string()))?;
        if self.written == 0 {
            self.phase = Phase::decode(&self.job.span);
        }
        if self.job.end.contains(&self.last) {
            self.send(Ok(Step::Ended));
            return Ok(false);
        }
        self.send(Ok(Step::Token(self.last)));
        self.written += 1;
        if self.written >= self.job.max_tokens {
            self.send(Ok(Step::Full));
            return Ok(false);
        }
        Ok(true)
    }

    /// The channel holds all that a job may write, so this fails only when the reader is gone, and the next step sees that.
    fn send(&self, step: Result<Step, Failure>) {
        let _ = self.out.try_send(step);
    }
}
