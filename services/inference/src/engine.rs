//! The engine of one loaded model: a thread of its own that gives every sequence one step in turn.
//!
//! Sequences never share a computation, so an answer does not depend on what else runs. Each has its own cache, freed with it: at its
//! end, when its reader is gone (within one step), or when the model fails on it; the others go on.

mod network;
mod phase;
mod queue;
mod sequence;

use std::sync::Arc;

use tidemill_models::sampling::Sampling;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tracing::Span;

pub(crate) use network::Network;
use phase::Phase;
use queue::{Entry, Queue};
use sequence::Sequence;

/// What an engine runs. Blocks, and may panic: both end in the engine's thread.
pub(crate) trait Decoder: Send + 'static {
    /// What is kept of the tokens read.
    type Cache;
    /// An empty cache for at most so many tokens.
    fn cache(&self, capacity: usize) -> Result<Self::Cache, Failure>;
    /// Reads tokens and writes the logits after the last one.
    fn read(&self, cache: &mut Self::Cache, ids: &[u32], logits: &mut Vec<f32>) -> Result<(), Failure>;
}

/// Why a model could not go on with a sequence.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(pub(crate) String);

/// The engine takes no more work now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{running} requests are running and {waiting} waiting, which is the most; try again later")]
pub(crate) struct Busy {
    pub(crate) running: usize,
    pub(crate) waiting: usize,
}

/// A sequence to write.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// Tokens to continue; at least one.
    pub(crate) prompt: Vec<u32>,
    /// Most tokens written; at least one, and with the prompt no more than the context.
    pub(crate) max_tokens: usize,
    /// How they are drawn.
    pub(crate) sampling: Sampling,
    /// Key of the draws.
    pub(crate) seed: u64,
    /// Tokens that end an answer, and are no part of it.
    pub(crate) end: Arc<[u32]>,
    /// The span that its phases belong to.
    pub(crate) span: Span,
}

/// What comes out of an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The next token.
    Token(u32),
    /// The model ended the text.
    Ended,
    /// As many tokens were written as were allowed.
    Full,
}

/// Tokens as they are written. Dropping it stops the work within one step.
pub(crate) type Tokens = mpsc::Receiver<Result<Step, Failure>>;

/// Bounds of an engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Sequences at once.
    pub(crate) running: usize,
    /// Jobs that may wait.
    pub(crate) waiting: usize,
    /// Prompt tokens read in one step.
    pub(crate) prefill: usize,
    /// Threads of one operation.
    pub(crate) threads: usize,
}

/// A handle on a model's thread. When it is dropped, the thread finishes what it was given and frees the model.
#[derive(Debug)]
pub(crate) struct Engine {
    queue: Arc<Queue>,
}

impl Engine {
    /// Starts the thread. `threads` counts it until it has ended and the model is freed.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(crate) fn start<D: Decoder>(decoder: D, limits: Limits, threads: &TaskTracker) -> std::io::Result<Self> {
        let queue = Arc::new(Queue::new(limits.waiting));
        let (jobs, counted) = (queue.clone(), threads.token());
        std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
            let _undisturbed = tidemill_torch::process::undisturbed();
            run(&decoder, limits, &jobs);
            drop(decoder);
            drop(counted);
        })?;
        Ok(Self { queue })
    }

    /// Hands a sequence to the thread.
    ///
    /// # Errors
    /// Too many wait already.
    pub(crate) fn submit(&self, job: Job) -> Result<Tokens, Busy> {
        // Room for all that the job may write: the thread never waits for a slow reader, and memory is bounded by `max_tokens`.
        let (out, tokens) = mpsc::channel(job.max_tokens + 1);
        let waiting = Phase::queue(&job.span);
        self.queue.push(Entry { job, out, waiting })?;
        Ok(tokens)
    }

    /// Sequences that run or wait.
    #[cfg(test)]
    pub(crate) fn load(&self) -> usize {
        let busy = self.queue.busy();
        busy.running + busy.waiting
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.queue.close();
    }
}

fn run<D: Decoder>(decoder: &D, limits: Limits, queue: &Queue) {
    tidemill_torch::process::set_threads(i32::try_from(limits.threads).unwrap_or(i32::MAX));
    let _no_gradients = tch::no_grad_guard();
    let mut running: Vec<Sequence<D::Cache>> = Vec::new();
    loop {
        while running.len() < limits.running {
            let next = if running.is_empty() { queue.wait() } else { queue.take() };
            match next {
                Some(entry) => running.push(Sequence::new(entry, limits.prefill)),
                None => break,
            }
        }
        if running.is_empty() {
            return;
        }
        running.retain_mut(|sequence| sequence.step(decoder));
        queue.set_running(running.len(), running.iter().map(Sequence::held).sum());
    }
}

#[cfg(test)]
mod tests;
