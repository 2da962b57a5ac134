//! The surroundings of preparation: told how far it is, asked whether to go on.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tidemill_proto::r#type::v1::Progress;
use tokio_util::sync::CancellationToken;

use crate::error::Error;

type Report = Box<dyn Fn(Progress) + Send + Sync>;

/// Cheap to clone, and callable from any thread.
#[derive(Clone)]
pub(crate) struct Watch {
    inner: Arc<Inner>,
}

struct Inner {
    stop: CancellationToken,
    report: Report,
    phase: Mutex<Phase>,
    done: AtomicU64,
}

struct Phase {
    name: &'static str,
    unit: &'static str,
    total: u64,
    told: Option<Instant>,
}

impl Watch {
    /// Told through `report`, stopped by `stop`.
    pub(crate) fn new(stop: CancellationToken, report: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        let phase = Mutex::new(Phase { name: "", unit: "", total: 0, told: None });
        Self { inner: Arc::new(Inner { stop, report: Box::new(report), phase, done: AtomicU64::new(0) }) }
    }

    /// Begins a phase of `total` units; 0 where unknown.
    pub(crate) fn phase(&self, name: &'static str, unit: &'static str, total: usize) -> Result<(), Error> {
        let total = total as u64;
        *self.inner.phase.lock().expect("no holder of this lock panics") = Phase { name, unit, total, told: None };
        self.inner.done.store(0, Ordering::Relaxed);
        self.advance(0)
    }

    /// Units done since the last call; an error once the job is stopped. People see it a few times a second.
    pub(crate) fn advance(&self, units: u64) -> Result<(), Error> {
        if self.stopped() {
            return Err(Error::Stopped);
        }
        let done = self.inner.done.fetch_add(units, Ordering::Relaxed) + units;
        let mut phase = self.inner.phase.lock().expect("no holder of this lock panics");
        if phase.told.is_some_and(|told| told.elapsed() < Duration::from_millis(250)) {
            return Ok(());
        }
        phase.told = Some(Instant::now());
        let progress = Progress {
            phase: phase.name.to_owned(),
            done_count: i64::try_from(done).unwrap_or(i64::MAX),
            total_count: i64::try_from(phase.total).unwrap_or(i64::MAX),
            unit: phase.unit.to_owned(),
            ..Progress::default()
        };
        drop(phase);
        (self.inner.report)(progress);
        Ok(())
    }

    /// Whether the job is stopped.
    pub(crate) fn stopped(&self) -> bool {
        self.inner.stop.is_cancelled()
    }
}
