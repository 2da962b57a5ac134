//! The processes of a job with several ranks: rank 0, which the launcher started, starts the others as its children.

use std::io::Read as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tidemill_torch::ranks::{Ranks, Store};

use super::gpu;
use crate::error::{Error, Result};
use crate::learning::World;

/// Environment variable that carries a [`Place`] as JSON; rank 0 has none.
const PLACE: &str = "TIDEMILL_RANK";
/// How long a rank that was lost may take to be seen as ended.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

/// A rank, and where it finds the others.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) rank: usize,
    size: usize,
    port: i32,
}

impl Place {
    /// What rank 0 gave this process, if this is its child.
    pub(crate) fn from_environment() -> Result<Option<Self>> {
        let Some(text) = std::env::var_os(PLACE) else { return Ok(None) };
        let place = serde_json::from_str(&text.to_string_lossy());
        place.map(Some).map_err(|error| Error::Ranks(format!("{PLACE} cannot be read: {error}")))
    }

    /// Joins the others. From now on this process ends with rank 0, however that ends.
    pub(crate) fn join(self) -> Result<World> {
        std::thread::spawn(|| {
            // Rank 0 writes nothing: this returns when it is gone.
            let _gone = std::io::stdin().read(&mut [0]);
            std::process::exit(1);
        });
        Ok(World::among(Ranks::join(self.port, self.rank, self.size).map_err(crate::learning::Error::from)?))
    }
}

/// Ranks 1 and up; they end when this is dropped.
pub(crate) struct Children {
    processes: Arc<Mutex<Vec<Child>>>,
    store: Store,
}

impl Children {
    /// Starts them: this program with these arguments again.
    pub(crate) fn start(size: usize) -> Result<Self> {
        let failed = |error: std::io::Error| Error::Ranks(format!("a rank cannot be started: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let children = Self { processes: Arc::default(), store: Store::serve().map_err(crate::learning::Error::from)? };
        for rank in 1..size {
            let place = Place { rank, size, port: children.store.port() };
            let child = Command::new(&program)
                .args(std::env::args_os().skip(1))
                .env(PLACE, serde_json::to_string(&place).expect("a place is plain data"))
                .env("CUDA_VISIBLE_DEVICES", gpu::visible_to(rank))
                .stdin(Stdio::piped())
                .spawn()
                .map_err(failed)?;
            tracing::info!(rank, pid = child.id(), "rank started");
            children.all().push(child);
        }
        Ok(children)
    }

    /// Joins them as rank 0.
    pub(crate) fn join(&mut self) -> Result<World> {
        let (port, size) = (self.store.port(), self.all().len() + 1);
        let joining = std::thread::spawn(move || Ranks::join(port, 0, size));
        while !joining.is_finished() {
            if self.ended() > 0 {
                return Err(Error::RankLost("before all had come together".to_owned()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let ranks = joining.join().map_err(|_| Error::Ranks("joining them panicked".to_owned()))?;
        Ok(World::among(ranks.map_err(crate::learning::Error::from)?))
    }

    /// How many have ended, after what may have been the end of one.
    pub(crate) fn lost(&mut self) -> usize {
        let began = Instant::now();
        while self.ended() == 0 && began.elapsed() < SEEN_WITHIN {
            std::thread::sleep(Duration::from_millis(20));
        }
        self.ended()
    }

    /// Ends this process when one of them fails, as long as what is returned lives. To be called where ranks share tensors of GPUs: these
    /// wait for a lost rank for ever, and the end of the process alone frees them. The service starts it again, from the newest checkpoint.
    pub(crate) fn end_with_them(&self) -> Arc<()> {
        let (guard, processes) = (Arc::new(()), self.processes.clone());
        let held = Arc::downgrade(&guard);
        std::thread::spawn(move || {
            let failed =
                |child: &mut Child| child.try_wait().is_ok_and(|ended| ended.is_some_and(|status| !status.success()));
            while held.upgrade().is_some() {
                if locked(&processes).iter_mut().any(failed) {
                    give_up();
                }
                std::thread::sleep(Duration::from_millis(500));
            }
        });
        guard
    }

    fn all(&self) -> MutexGuard<'_, Vec<Child>> {
        locked(&self.processes)
    }

    fn ended(&mut self) -> usize {
        self.all().iter_mut().filter_map(|child| child.try_wait().ok().flatten()).count()
    }
}

fn locked(processes: &Mutex<Vec<Child>>) -> MutexGuard<'_, Vec<Child>> {
    processes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The end of a process whose GPU waits for a rank that is lost.
pub(crate) fn give_up() -> ! {
    tracing::error!("a rank is lost; this process ends, because its GPU would wait for that rank for ever");
    std::process::exit(1)
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in self.all().iter_mut() {
            // Those that have ended are only waited for.
            let _ended = child.kill();
            let _status = child.wait();
        }
    }
}
