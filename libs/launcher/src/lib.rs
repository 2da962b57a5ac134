//! Starts workers: processes that do heavy work and outlive a crash of whoever started them.

mod check;
pub mod contract;
mod kubernetes;
mod process;

use std::sync::Arc;

use async_trait::async_trait;

/// What to start.
#[derive(Clone, Debug, PartialEq)]
pub struct Worker {
    /// Its identity: starting the same id twice gives one worker. Letters, digits, `-` and `_`.
    pub id: String,
    /// Program and arguments, passed on exactly; the first is an executable on this machine, or in the worker's image.
    pub command: Vec<String>,
    /// Environment on top of the parent's, or of what the Job's template gives.
    pub env: Vec<(String, String)>,
    /// Of how many processes it consists, its ranks; at least 1. In a cluster each is a pod, told by `JOB_COMPLETION_INDEX`, `WORLD_SIZE`
    /// and `MASTER_ADDR` which it is, among how many, and where it finds rank 0. Elsewhere rank 0 alone is started, and has to start the
    /// others. A worker stands as its rank 0 does, and what that prints is its output.
    pub ranks: usize,
}

/// How a worker stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// No worker has that id, or it was reaped.
    Unknown,
    /// It runs. The handle is for people and for tests: a process id on a laptop, a pod's name in a cluster.
    Running {
        /// Process id or pod name.
        handle: String,
    },
    /// It ended.
    Exited(Exit),
}

/// How a worker ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It is gone and nobody saw how: its supervisor was killed too.
    Lost,
}

/// What to send to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Finish the present step, save, leave (SIGTERM).
    Terminate,
    /// Die (SIGKILL).
    Kill,
}

/// What can go wrong, by meaning.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The id or command is not acceptable.
    #[error("worker {id} cannot be started: {reason}")]
    Invalid {
        /// Worker id.
        id: String,
        /// Why.
        reason: String,
    },
    /// The disk is full.
    #[error("the disk that holds {0} is full; free space, then retry")]
    DiskFull(String),
    /// The launcher cannot work.
    #[error("the launcher {url} is unavailable: {reason}")]
    Unavailable {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The port.
#[async_trait]
pub trait Launcher: Send + Sync + 'static {
    /// Starts a worker. An id that runs or has exited without being reaped is left as it is. In a cluster it may have to wait for room.
    async fn start(&self, worker: &Worker) -> Result<()>;
    /// How it stands, also for workers that a former process started.
    async fn status(&self, id: &str) -> Result<Status>;
    /// Waits until it has ended. Cancel-safe; to be awaited as a whole, for every call begins to watch anew.
    async fn wait(&self, id: &str) -> Result<Exit>;
    /// Sends a signal to it; nothing happens if it does not run.
    async fn signal(&self, id: &str, signal: Signal) -> Result<()>;
    /// Its output (stdout and stderr together) from a byte offset, at most 1 MiB. Once `status` or `wait` has said that it ended,
    /// all of it; empty at its end.
    async fn log(&self, id: &str, offset: u64) -> Result<Vec<u8>>;
    /// Forgets a worker that has ended, with its output; a running one is killed first.
    async fn reap(&self, id: &str) -> Result<()>;
}

/// Opens the launcher that a URL names. `process:///path/to/folder` keeps pid files, exit codes and output in that folder;
/// `kubernetes:///<namespace>?job_template=/path/to/job.yaml` makes a Job of each worker, in the cluster that this process runs in or
/// that `KUBECONFIG` names.
pub async fn connect(url: &str) -> Result<Arc<dyn Launcher>> {
    match url.split_once(':') {
        Some(("process", _)) => Ok(Arc::new(process::ProcessLauncher::open(url).await?)),
        Some(("kubernetes", _)) => Ok(Arc::new(kubernetes::KubernetesLauncher::open(url).await?)),
        _ => Err(Error::Unavailable {
            url: url.to_owned(),
            reason: "unknown scheme; use process:///path/to/folder or kubernetes:///<namespace>?job_template=/path/to/job.yaml"
                .to_owned(),
        }),
    }
}
