//! What the server leaves in its data directory about itself, and its process.

use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::Value;

use crate::arguments::DataDir;
use crate::failure::Failure;

/// A server that said where it listens.
pub(super) struct Server {
    pub(super) pid: i32,
    /// gRPC, as a URL.
    pub(super) grpc: String,
    /// HTTP, as a URL.
    pub(super) http: String,
}

impl DataDir {
    /// The folder, with `~` expanded.
    pub(super) fn path(&self) -> Result<PathBuf, Failure> {
        let given = match &self.data_dir {
            Some(given) => given.clone(),
            // Only the server reads settings files.
            None if std::env::var_os("TIDEMILL_CONFIG").is_some_and(|file| !file.is_empty()) => self.configured()?,
            None => "~/.local/share/tidemill".to_owned(),
        };
        let Some(rest) = given.strip_prefix('~') else {
            return std::path::absolute(&given).map_err(|error| Failure::Usage(format!("--data-dir: {error}")));
        };
        let home = std::env::var_os("HOME")
            .ok_or_else(|| Failure::Usage("the data directory begins with ~ and HOME is not set".to_owned()))?;
        Ok(PathBuf::from(home).join(rest.trim_start_matches('/')))
    }

    fn configured(&self) -> Result<String, Failure> {
        let program = self.program()?;
        let failed = |text: String| Failure::Failed(format!("{} --print-config: {text}", program.display()));
        let output =
            Command::new(&program).arg("--print-config").output().map_err(|error| failed(error.to_string()))?;
        if !output.status.success() {
            return Err(Failure::Usage(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let value = text.lines().find_map(|line| line.strip_prefix("platform.data_dir = "));
        let value = value.and_then(|value| serde_json::from_str::<String>(value).ok());
        value.ok_or_else(|| failed("no platform.data_dir in it".to_owned()))
    }

    /// `tidemilld`: named, beside this program, or on PATH.
    pub(super) fn program(&self) -> Result<PathBuf, Failure> {
        if let Some(program) = &self.program {
            return Ok(program.clone());
        }
        daemon().ok_or_else(|| {
            let text = "tidemilld is neither beside this program nor on PATH; build it with `make build`, or name it with --program";
            Failure::Failed(text.to_owned())
        })
    }
}

/// `tidemilld` beside this program, or on PATH.
pub(super) fn daemon() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("tidemilld")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join("tidemilld"));
    beside.into_iter().chain(on_path).find(|file| file.is_file())
}

/// Where a detached server's output goes.
pub(super) fn log_file(data_dir: &Path) -> PathBuf {
    data_dir.join("tidemilld.log")
}

/// Reads `tidemilld.json`; nothing where no server has written it, or the one that did is gone.
pub(super) fn running(data_dir: &Path) -> Option<Server> {
    let text = std::fs::read_to_string(data_dir.join("tidemilld.json")).ok()?;
    let value: Value = serde_json::from_str(&text).ok()?;
    let field = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    let url = |name: &str| match field(name) {
        "" => String::new(),
        address if address.contains("://") => address.to_owned(),
        address => format!("http://{address}"),
    };
    let pid = i32::try_from(value.get("pid")?.as_i64()?).ok()?;
    let server = Server { pid, grpc: url("grpc"), http: url("http") };
    server.alive().then_some(server)
}

impl Server {
    /// Whether the process is there and is a server of ours: ids are used again.
    pub(super) fn alive(&self) -> bool {
        let Some(pid) = Pid::from_raw(self.pid) else { return false };
        let name = std::fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        test_kill_process(pid).is_ok() && name.trim().starts_with("tidemill")
    }

    /// Asks it to stop.
    pub(super) fn stop(&self) -> Result<(), Failure> {
        terminate(self.pid)
    }
}

/// Sends SIGTERM.
pub(super) fn terminate(pid: i32) -> Result<(), Failure> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(()) };
    kill_process(pid, Signal::TERM)
        .map_err(|error| Failure::Failed(format!("process {pid:?} cannot be stopped: {error}")))
}
