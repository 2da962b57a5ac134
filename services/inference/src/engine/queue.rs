//! The bounded queue before an engine's thread. Requests whose callers have left make room for others.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;

use super::{Busy, Failure, Job, Step};

/// A job and where its tokens go.
pub(super) type Entry = (Job, mpsc::Sender<Result<Step, Failure>>);

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Entry>,
    running: usize,
    closed: bool,
}

impl Queue {
    pub(super) fn new(most: usize) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), most }
    }

    pub(super) fn push(&self, entry: Entry) -> Result<(), Busy> {
        let mut state = self.lock();
        if state.waiting.len() >= self.most {
            state.waiting.retain(|(_, out)| !out.is_closed());
        }
        if state.waiting.len() >= self.most {
            return Err(Busy { running: state.running, waiting: state.waiting.len() });
        }
        state.waiting.push_back(entry);
        self.changed.notify_one();
        Ok(())
    }

    /// The next entry, if there is one. It counts as running from now on.
    pub(super) fn take(&self) -> Option<Entry> {
        Self::next(&mut self.lock())
    }

    /// Waits for an entry; none when the queue is closed and empty.
    pub(super) fn wait(&self) -> Option<Entry> {
        let mut state = self.lock();
        loop {
            if let Some(entry) = Self::next(&mut state) {
                return Some(entry);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn set_running(&self, running: usize) {
        self.lock().running = running;
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

    fn next(state: &mut State) -> Option<Entry> {
        let entry = state.waiting.pop_front()?;
        state.running += 1;
        Some(entry)
    }

    /// The state is whole whenever the lock is free, so a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
