//! A spawned `tidemilld`: the real binary, so that it can be killed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tidemill_standalone::Endpoints;

/// Path of a built program of this workspace: in the folder of our own program, or above it, where a test lies in `deps`.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().context("a program lies in a folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().context("deps lies in a folder")? } else { folder };
    let path = folder.join(name);
    if !path.exists() {
        bail!("{} is not built; run `make test`, or `cargo build --workspace` first", path.display());
    }
    Ok(path)
}

/// A `tidemilld` that runs apart; killed when dropped.
pub struct Spawned {
    /// Where it answers.
    pub endpoints: Endpoints,
    child: Child,
}

impl Spawned {
    /// Starts one with a settings file, and waits until it has said where it answers.
    pub async fn start(settings: &Path, data: &Path) -> Result<Self> {
        let mut child = Self::spawn(settings, Stdio::null(), append(&data.with_extension("log"))?.into())?;
        let file = data.join("tidemilld.json");
        let pid = child.id();
        let found = crate::eventually("tidemilld's start", async || {
            if let Ok(Some(status)) = child.try_wait() {
                return Some(Err(status));
            }
            let text = std::fs::read_to_string(&file).ok()?;
            let endpoints: Endpoints = serde_json::from_str(&text).ok()?;
            (endpoints.pid == pid).then_some(Ok(endpoints))
        })
        .await;
        match found {
            Ok(Ok(endpoints)) => Ok(Self { endpoints, child }),
            Ok(Err(status)) => {
                let log = std::fs::read_to_string(data.with_extension("log")).unwrap_or_default();
                bail!("tidemilld ended at its start with {status}: {log}")
            }
            Err(error) => {
                child.kill()?;
                Err(error)
            }
        }
    }

    /// Starts the program and returns at once: for starts that should fail.
    pub fn spawn(settings: &Path, stdout: Stdio, stderr: Stdio) -> Result<Child> {
        let mut command = Command::new(program("tidemilld")?);
        command.env("TIDEMILL_CONFIG", settings).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        Ok(command.spawn()?)
    }

    /// Kills it at once, as a crash would.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Sends SIGTERM and waits for its end; returns how long that took. Fails if it did not leave with success.
    pub async fn terminate(mut self) -> Result<Duration> {
        let start = Instant::now();
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("a child has a pid")?;
        kill_process(pid, Signal::TERM)?;
        let status: ExitStatus =
            crate::eventually("the end after SIGTERM", async || self.child.try_wait().ok().flatten()).await?;
        if !status.success() {
            bail!("tidemilld left with {status} after SIGTERM");
        }
        Ok(start.elapsed())
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // It may be gone already.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

fn append(path: &Path) -> Result<std::fs::File> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    Ok(std::fs::OpenOptions::new().create(true).append(true).open(path)?)
}
