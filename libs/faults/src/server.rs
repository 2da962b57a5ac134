//! A real server of a test's own, by the scripts in `.ci/servers`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

/// How long a process may take to end.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server, killed and deleted when it is dropped. Panics where it cannot do what is asked: it belongs to tests.
pub struct Server {
    script: PathBuf,
    folder: tempfile::TempDir,
}

impl Server {
    /// Installs what is missing and starts a server, in a folder of its own, on ports of its own. `name` is a script of `.ci/servers`.
    pub fn start(name: &str) -> Server {
        use std::os::unix::fs::PermissionsExt;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.ci/servers").join(name);
        // PostgreSQL may run as another user than we do.
        let permissions = std::fs::Permissions::from_mode(0o755);
        let folder = tempfile::Builder::new().prefix("server-").permissions(permissions).tempdir();
        let server = Server { script, folder: folder.expect("a temporary folder") };
        server.start_again();
        server
    }

    /// Starts it again where it was, with the data that it had.
    pub fn start_again(&self) {
        let mut start = Command::new(&self.script);
        let status = start.arg("start").arg(self.folder.path()).stdin(Stdio::null()).status();
        assert!(status.as_ref().is_ok_and(std::process::ExitStatus::success), "{}: {status:?}", self.script.display());
    }

    /// Where its configuration, data and log are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A line of its environment: `TIDEMILL_TEST_REDIS`.
    pub fn variable(&self, name: &str) -> String {
        let text = std::fs::read_to_string(self.folder.path().join("env")).expect("the server's env");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_else(|| panic!("the server says no {name}")).to_owned()
    }

    /// Ends it without a chance to say or save anything.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        self.await_end();
    }

    /// Asks it to end at once: PostgreSQL leaves its transactions to recovery.
    pub fn quit(&self) {
        self.signal(Signal::QUIT);
        self.await_end();
    }

    /// Stops the process: its connections stay open and it says nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn pid(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.folder.path().join("pid")).ok()?;
        Pid::from_raw(text.trim().parse().ok()?)
    }

    fn signal(&self, signal: Signal) {
        let pid = self.pid().expect("the server's pid");
        kill_process(pid, signal).expect("a signal to the server");
    }

    fn await_end(&self) {
        let pid = self.pid().expect("the server's pid");
        let begin = Instant::now();
        while test_kill_process(pid).is_ok() {
            assert!(begin.elapsed() < PATIENCE, "process {pid:?} does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = self.pid() {
            // It may have ended, or be stopped.
            let _ = kill_process(pid, Signal::CONT);
            let _ = Command::new(&self.script).arg("stop").arg(self.folder.path()).status();
        }
    }
}
