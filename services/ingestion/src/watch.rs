//! Readers that stop when the job does, count what they read, and never read beyond a limit.

use std::{
    io::{self, Read},
    sync::atomic::{AtomicU64, Ordering},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tidemill_proto::r#type::v1::Progress;
use tokio_util::sync::CancellationToken;

use crate::error::Error;

type Report = Box<dyn Fn(Progress) + Send + Sync>;

/// The surroundings of reading: told how far it is, asked whether to go on. Cheap to clone.
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
    pub(crate) fn phase(&self, name: &'static str, unit: &'static str, total: u64) {
        *self.inner.phase.lock().expect("no holder of this lock panics") = Phase { name, unit, total, told: None };
        self.inner.done.store(0, Ordering::Relaxed);
        self.advance(0);
    }

    /// Units done since the last call; people see it a few times a second.
    pub(crate) fn advance(&self, units: u64) {
        let done = self.inner.done.fetch_add(units, Ordering::Relaxed) + units;
        let mut phase = self.inner.phase.lock().expect("no holder of this lock panics");
        if phase.told.is_some_and(|told| told.elapsed() < Duration::from_millis(250)) {
            return;
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
    }

    /// An error once the job is stopped.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.inner.stop.is_cancelled() { Err(Error::Stopped) } else { Ok(()) }
    }

    /// A reader that stops with the job.
    pub(crate) fn reader<R: Read>(&self, reader: R) -> Watched<R> {
        Watched { reader, watch: self.clone() }
    }
}

/// See [`Watch::reader`].
pub(crate) struct Watched<R> {
    reader: R,
    watch: Watch,
}

impl<R: Read> Read for Watched<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.watch.check().map_err(io::Error::other)?;
        // Bounded pieces keep the answer to a stop prompt.
        let length = buffer.len().min(1 << 20);
        self.reader.read(&mut buffer[..length])
    }
}

/// Fails beyond a number of bytes.
pub(crate) struct Limited<R> {
    reader: R,
    left: u64,
}

/// What [`Limited`] fails with.
#[derive(Debug, thiserror::Error)]
#[error("more bytes than allowed")]
pub(crate) struct BeyondLimit;

impl<R> Limited<R> {
    pub(crate) fn new(reader: R, limit: u64) -> Self {
        Self { reader, left: limit }
    }
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| io::Error::other(BeyondLimit))?;
        Ok(count)
    }
}
