//! The processes of a job with several ranks: rank 0, which the launcher started, starts the others as its children.

use std::io::Read as _;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tidemill_torch::ranks::{Ranks, Store};

use super::place::{CHILD, ChildPlace};
use crate::error::{Error, Result};
use crate::learning::World;

/// How long a rank that was lost may take to be seen as ended.
const SEEN_WITHIN: Duration = Duration::from_secs(2);

impl ChildPlace {
    /// Joins the others. From now on this process ends with rank 0, however that ends.
    pub(crate) fn join(self) -> Result<World> {
        std::thread::spawn(|| {
            // Rank 0 writes nothing: this returns when it is gone.
            let _gone = std::io::stdin().read(&mut [0]);
            std::process::exit(1);
        });
        let ranks = Ranks::join(self.store, self.store.ip(), self.rank, self.size);
        Ok(World::among(ranks.map_err(crate::learning::Error::from)?))
    }
}

/// Ranks 1 and up; they end when this is dropped.
pub(crate) struct Children {
    processes: Vec<Child>,
    store: Store,
}

impl Children {
    /// Starts them: this program with these arguments again.
    pub(crate) fn start(size: usize) -> Result<Self> {
        let failed = |error: std::io::Error| Error::Ranks(format!("a rank cannot be started: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let store = Store::serve(Ipv4Addr::LOCALHOST.into()).map_err(crate::learning::Error::from)?;
        let mut children = Self { processes: Vec::new(), store };
        for rank in 1..size {
            let place = ChildPlace { rank, size, store: children.store.address() };
            let child = Command::new(&program)
                .args(std::env::args_os().skip(1))
                .env(CHILD, serde_json::to_string(&place).expect("a place is plain data"))
                .stdin(Stdio::piped())
                .spawn()
                .map_err(failed)?;
            tracing::info!(rank, pid = child.id(), "rank started");
            children.processes.push(child);
        }
        Ok(children)
    }

    /// Joins them as rank 0.
    pub(crate) fn join(&mut self) -> Result<World> {
        let (store, size) = (self.store.address(), self.processes.len() + 1);
        let joining = std::thread::spawn(move || Ranks::join(store, store.ip(), 0, size));
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

    fn ended(&mut self) -> usize {
        self.processes.iter_mut().filter_map(|child| child.try_wait().ok().flatten()).count()
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in &mut self.processes {
            // Those that have ended are only waited for.
            let _ended = child.kill();
            let _status = child.wait();
        }
    }
}
