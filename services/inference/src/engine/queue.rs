//! The bounded queue before an engine's thread. Requests whose callers have left make room for others.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::phase::Phase;
use super::{Busy, Failure, Job, Step};

/// A job that waits.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) job: Job,
    /// Where its tokens go.
    pub(super) out: mpsc::Sender<Result<Step, Failure>>,
    /// Its time in the queue.
    pub(super) waiting: Phase,
}

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    most: usize,
    gauges: Gauges,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Entry>,
    running: usize,
    /// Tokens in the caches of running sequences.
    held: usize,
    closed: bool,
}

/// This queue's part of the process' gauges: several engines share them while one model takes the place of another.
#[derive(Debug, Default)]
struct Gauges {
    /// Waiting, running, tokens held, as last told.
    told: Mutex<[usize; 3]>,
}

impl Gauges {
    fn tell(&self, state: &State) {
        let now = [state.waiting.len(), state.running, state.held];
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told == now {
            return;
        }
        let names = [
            "tidemill_inference_requests_waiting",
            "tidemill_inference_requests_running",
            "tidemill_inference_kv_cache_tokens",
        ];
        for ((name, now), before) in names.into_iter().zip(now).zip(*told) {
            metrics::gauge!(name).increment(now as f64 - before as f64);
        }
        *told = now;
    }
}

impl Queue {
    pub(super) fn new(most: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), most, gauges: Gauges::default() }
    }

    pub(super) fn push(&self, entry: Entry) -> Result<(), Busy> {
        let mut state = self.lock();
        if state.waiting.len() >= self.most {
            state.waiting.retain(|entry| !entry.out.is_closed());
        }
        if state.waiting.len() >= self.most {
            return Err(Busy { running: state.running, waiting: state.waiting.len() });
        }
        state.waiting.push_back(entry);
        self.gauges.tell(&state);
        self.changed.notify_one();
        Ok(())
    }

    /// The next entry, if there is one. It counts as running from now on.
    pub(super) fn take(&self) -> Option<Entry> {
        self.next(&mut self.lock())
    }

    /// Waits for an entry; none when the queue is closed and empty.
    pub(super) fn wait(&self) -> Option<Entry> {
        let mut state = self.lock();
        loop {
            if let Some(entry) = self.next(&mut state) {
                return Some(entry);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Says how many run, and how many tokens they hold.
    pub(super) fn set_running(&self, running: usize, held: usize) {
        let mut state = self.lock();
        (state.running, state.held) = (running, held);
        self.gauges.tell(&state);
    }

    #[cfg(test)]
    pub(super) fn busy(&self) -> Busy {
        let state = self.lock();
        Busy { running: state.running, waiting: state.waiting.len() }
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn next(&self, state: &mut State) -> Option<Entry> {
        let entry = state.waiting.pop_front()?;
        state.running += 1;
        self.gauges.tell(state);
        Some(entry)
    }

    /// The state is whole whenever the lock is free, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
