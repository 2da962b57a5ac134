//! The laptop's adapter: a child process a worker, a folder a worker.
//!
//! In the folder: `spec.json` (for people), `lock` (held while a supervisor lives), `pid` (the worker's, written by it before it
//! becomes the program), `exit` (its exit code, written by the supervisor), `output.log`. Every file appears whole or not at all, so
//! a launcher that is killed between any two steps leaves a state that the next one reads.

mod folder;
mod supervisor;

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use rustix::process::{PidfdFlags, pidfd_open, pidfd_send_signal};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::{Error, Exit, Launcher, Result, Signal, Status, Worker, check};
use folder::{Folder, State};

/// Most bytes of output at a time.
const MOST_OUTPUT: u64 = 1 << 20;
/// Between two looks at a worker that runs.
const LOOK: Duration = Duration::from_millis(20);
/// Between two looks at a supervisor that is in the middle of a step.
const TICK: Duration = Duration::from_millis(5);
/// How long a supervisor may take for a step that takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct ProcessLauncher {
    url: String,
    root: PathBuf,
    /// Starting and reaping an id at the same time would confuse both.
    one_at_a_time: Mutex<()>,
}

impl ProcessLauncher {
    pub(crate) async fn open(url: &str) -> Result<ProcessLauncher> {
        let root = match url.strip_prefix("process://") {
            Some(path) if path.starts_with('/') => PathBuf::from(path),
            _ => {
                let reason = "the path must be absolute: process:///path/to/folder".to_owned();
                return Err(Error::Unavailable { url: url.to_owned(), reason });
            }
        };
        let launcher = ProcessLauncher { url: url.to_owned(), root, one_at_a_time: Mutex::default() };
        std::fs::create_dir_all(&launcher.root).map_err(|error| launcher.failed(&launcher.root, &error))?;
        folder::sweep(&launcher.root).map_err(|error| launcher.failed(&launcher.root, &error))?;
        Ok(launcher)
    }

    fn folder(&self, id: &str) -> Result<Folder> {
        check::id(id)?;
        Ok(Folder::new(self.root.join(id)))
    }

    fn state(&self, folder: &Folder) -> Result<State> {
        folder.state().map_err(|error| self.failed(folder.path(), &error))
    }

    fn failed(&self, path: &Path, error: &std::io::Error) -> Error {
        match error.kind() {
            std::io::ErrorKind::StorageFull => Error::DiskFull(path.display().to_string()),
            _ => Error::Unavailable { url: self.url.clone(), reason: format!("{}: {error}", path.display()) },
        }
    }
}

#[async_trait]
impl Launcher for ProcessLauncher {
    async fn start(&self, worker: &Worker) -> Result<()> {
        check::worker(worker)?;
        let folder = self.folder(&worker.id)?;
        let _guard = self.one_at_a_time.lock().await;
        let io = |error: std::io::Error| self.failed(folder.path(), &error);
        let deadline = Instant::now() + PATIENCE;
        let lock = loop {
            // Whoever has the lock alone decides; once there is a pid or an exit code, there is nothing left to decide.
            let lock = folder.create().and_then(|()| folder.lock()).map_err(io)?;
            if folder.has_begun() {
                return Ok(());
            }
            match lock {
                Some(lock) => break lock,
                None if Instant::now() > deadline => {
                    let reason = format!("{} is locked, but no worker appears", folder.path().display());
                    return Err(Error::Unavailable { url: self.url.clone(), reason });
                }
                None => tokio::time::sleep(TICK).await,
            }
        };
        let mut child = supervisor::spawn(&folder, lock, worker).map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidInput => Error::Invalid { id: worker.id.clone(), reason: error.to_string() },
            std::io::ErrorKind::ArgumentListTooLong => {
                Error::Invalid { id: worker.id.clone(), reason: error.to_string() }
            }
            _ => self.failed(folder.path(), &error),
        })?;
        // The supervisor goes on if this future is dropped here; tokio buries it when it ends.
        while !folder.has_begun() {
            if child.try_wait().map_err(io)?.is_some() && !folder.has_begun() {
                return Err(match folder.is_on_full_disk() {
                    true => Error::DiskFull(folder.path().display().to_string()),
                    false => {
                        let output = String::from_utf8_lossy(&self.log(&worker.id, 0).await?).trim().to_owned();
                        Error::Unavailable { url: self.url.clone(), reason: format!("/bin/sh ended early: {output}") }
                    }
                });
            }
            tokio::time::sleep(TICK).await;
        }
        tracing::debug!(worker = worker.id, supervisor = child.id(), "worker started");
        Ok(())
    }

    async fn status(&self, id: &str) -> Result<Status> {
        Ok(match self.state(&self.folder(id)?)? {
            State::Absent => Status::Unknown,
            State::Starting => Status::Running { handle: "starting".to_owned() },
            State::Running(process) | State::Ending(process) => Status::Running { handle: process.pid.to_string() },
            State::Exited(exit) => Status::Exited(exit),
        })
    }

    async fn wait(&self, id: &str) -> Result<Exit> {
        let folder = self.folder(id)?;
        loop {
            match self.state(&folder)? {
                State::Exited(exit) => return Ok(exit),
                State::Absent => return Ok(Exit::Lost),
                // A worker that another process started is not our child: nothing but a look tells that it has ended.
                State::Running(_) => tokio::time::sleep(LOOK).await,
                State::Starting | State::Ending(_) => tokio::time::sleep(TICK).await,
            }
        }
    }

    async fn signal(&self, id: &str, signal: Signal) -> Result<()> {
        let folder = self.folder(id)?;
        let State::Running(process) = self.state(&folder)? else { return Ok(()) };
        let signal = match signal {
            Signal::Terminate => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
        };
        // The pidfd holds on to one process: if that is still our worker, the signal cannot reach another.
        let sent = pidfd_open(process.pid(), PidfdFlags::empty()).and_then(|pidfd| match process.is_alive() {
            true => pidfd_send_signal(&pidfd, signal),
            false => Ok(()),
        });
        match sent {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(self.failed(folder.path(), &error.into())),
        }
    }

    async fn log(&self, id: &str, offset: u64) -> Result<Vec<u8>> {
        let path = self.folder(id)?.output();
        let read = || {
            let mut file = File::open(&path)?;
            file.seek(SeekFrom::Start(offset))?;
            let mut bytes = Vec::new();
            file.take(MOST_OUTPUT).read_to_end(&mut bytes)?;
            Ok::<_, std::io::Error>(bytes)
        };
        match read() {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.map_err(|error| self.failed(&path, &error)),
        }
    }

    async fn reap(&self, id: &str) -> Result<()> {
        let folder = self.folder(id)?;
        let _guard = self.one_at_a_time.lock().await;
        if self.state(&folder)? == State::Absent && !folder.path().exists() {
            return Ok(());
        }
        self.signal(id, Signal::Kill).await?;
        // The supervisor writes the exit code of what was killed. Should it never manage to, it gives up once the folder is gone.
        let _ = tokio::time::timeout(PATIENCE, self.wait(id)).await;
        folder.remove().map_err(|error| self.failed(folder.path(), &error))
    }
}

#[cfg(test)]
mod tests;
