//! The folder of one worker, and how to read from it how the worker stands.

use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Result, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::Pid;

use crate::{Exit, Worker};

/// How a worker stands.
#[derive(Debug, PartialEq)]
pub(super) enum State {
    Absent,
    /// Its supervisor has not yet got to starting it.
    Starting,
    Running(Process),
    /// It has ended, and its supervisor is about to write how.
    Ending(Process),
    Exited(Exit),
}

/// A process, told from later ones that get the same id by when it started.
#[derive(Debug, PartialEq)]
pub(super) struct Process {
    pub(super) pid: i32,
    started: u64,
    boot: String,
}

pub(super) struct Folder {
    path: PathBuf,
}

/// Held by whoever starts or supervises the worker; shared with children that inherit it.
pub(super) struct Lock(File);

impl Lock {
    pub(super) fn into_file(self) -> File {
        self.0
    }
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Folder {
        Folder { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn output(&self) -> PathBuf {
        self.path.join("output.log")
    }

    /// Creates the folder; nobody else may read a worker's output.
    pub(super) fn create(&self) -> Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)
    }

    /// Takes the lock, unless somebody has it.
    pub(super) fn lock(&self) -> Result<Option<Lock>> {
        let file = File::options().read(true).write(true).create(true).truncate(false).open(self.path.join("lock"))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a worker was ever started here.
    pub(super) fn has_begun(&self) -> bool {
        self.path.join("pid").exists() || self.path.join("exit").exists()
    }

    pub(super) fn state(&self) -> Result<State> {
        if let Some(exit) = self.exit()? {
            return Ok(State::Exited(exit));
        }
        let process = match self.read("pid")? {
            Some(text) => Process::parse(&text),
            None if !self.path.join("lock").exists() => return Ok(State::Absent),
            None if self.lock()?.is_some() => {
                // Nobody holds the lock: nobody is starting. Unless that went on between the looks above.
                return if self.has_begun() { self.state() } else { Ok(State::Absent) };
            }
            None => return Ok(State::Starting),
        };
        match process {
            Some(process) if process.is_alive() => Ok(State::Running(process)),
            Some(process) if self.lock()?.is_none() => Ok(State::Ending(process)),
            // Supervised no more: either the exit code was written since the look above, or nobody will ever write it.
            _ => Ok(State::Exited(self.exit()?.unwrap_or(Exit::Lost))),
        }
    }

    /// What the supervisor wrote.
    fn exit(&self) -> Result<Option<Exit>> {
        Ok(self.read("exit")?.map(|text| match text.trim().parse::<i32>() {
            Ok(code) if code > 128 => Exit::Signal(code - 128),
            Ok(code) => Exit::Code(code),
            Err(_) => Exit::Lost,
        }))
    }

    fn read(&self, file: &str) -> Result<Option<String>> {
        match std::fs::read_to_string(self.path.join(file)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes what was started, for people. Values of the environment may be secrets: only names are written.
    pub(super) fn write_spec(&self, worker: &Worker) -> Result<()> {
        let names: Vec<&str> = worker.env.iter().map(|(name, _)| name.as_str()).collect();
        let spec = serde_json::json!({ "id": worker.id, "command": worker.command, "env": names });
        let part = self.path.join("spec.json.part");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&part)?;
        writeln!(file, "{spec:#}")?;
        std::fs::rename(part, self.path.join("spec.json"))
    }

    /// Removes the folder; it is gone at once, its content soon.
    pub(super) fn remove(&self) -> Result<()> {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let gone = self.path.with_file_name(format!("{REAPED}{name}"));
        if gone.exists() {
            std::fs::remove_dir_all(&gone)?;
        }
        std::fs::rename(&self.path, &gone)?;
        std::fs::remove_dir_all(&gone)
    }

    pub(super) fn is_on_full_disk(&self) -> bool {
        rustix::fs::statvfs(&self.path).is_ok_and(|room| room.f_bavail * room.f_frsize < 64 * 1024)
    }
}

/// Marks folders that are being removed; no id can begin like this.
const REAPED: &str = ".reaped-";

/// Removes what a killed launcher was removing.
pub(super) fn sweep(root: &Path) -> Result<()> {
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(REAPED) {
            std::fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Tells one run of the kernel from the next: process ids and start times begin anew.
pub(super) fn boot_id() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(id) if !id.trim().is_empty() => id.trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}

impl Process {
    /// Reads what the supervisor's script wrote: boot id, and the line of `/proc/<pid>/stat`.
    fn parse(text: &str) -> Option<Process> {
        let (boot, stat) = text.split_once(' ')?;
        let (_, started) = alive_since(stat)?;
        let pid = stat.split(' ').next()?.parse().ok().filter(|pid| *pid > 0)?;
        Some(Process { pid, started, boot: boot.to_owned() })
    }

    /// Its id, as system calls want it.
    pub(super) fn pid(&self) -> Pid {
        Pid::from_raw(self.pid).expect("a parsed process id is above zero")
    }

    /// Whether it runs: a dead process that nobody has buried yet (state Z) does not, nor one that merely got the same id.
    pub(super) fn is_alive(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).unwrap_or_default();
        alive_since(&stat).is_some_and(|(state, started)| {
            !matches!(state, "Z" | "X") && started == self.started && self.boot == boot_id()
        })
    }
}

/// State and start time of a line of `/proc/<pid>/stat`. The second field is a name in parentheses that may hold anything.
fn alive_since(stat: &str) -> Option<(&str, u64)> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split_whitespace();
    let state = fields.next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}
