//! The promises, and what only processes and folders can show. Every process that a test starts is killed when the test ends.

use std::sync::Arc;

use tempfile::TempDir;

use super::*;
use crate::contract;

macro_rules! promises {
    ($($promise:ident)*) => {
        mod promises {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let here = Here::new().await;
                contract::$promise(&here.launcher).await;
            })*
        }
    };
}

promises! {
    starting_an_id_twice_gives_one_worker
    an_exit_code_is_seen
    a_missing_program_is_seen
    a_killed_worker_is_seen
    a_terminated_worker_finishes
    a_signal_to_nobody_changes_nothing
    output_is_kept
    both_outputs_keep_their_order
    a_worker_gets_its_arguments_and_environment
    a_reaped_worker_is_forgotten
    many_may_wait
    a_strange_worker_is_refused
}

/// A launcher on a temporary folder.
struct Here {
    folder: TempDir,
    launcher: Arc<dyn Launcher>,
}

impl Here {
    async fn new() -> Here {
        let folder = tempfile::tempdir().unwrap();
        let launcher = connect(folder.path()).await;
        Here { folder, launcher }
    }

    fn worker(&self, id: &str) -> Folder {
        Folder::new(self.folder.path().join(id))
    }

    async fn pid(&self, id: &str) -> i32 {
        match self.launcher.status(id).await.unwrap() {
            Status::Running { handle } => handle.parse().unwrap(),
            other => panic!("{other:?}"),
        }
    }

    async fn until(&self, id: &str, wanted: Status) {
        let reached = async {
            while self.launcher.status(id).await.unwrap() != wanted {
                tokio::time::sleep(TICK).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap_or_else(|_| panic!("{id} never becomes {wanted:?}"));
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.folder.path()).unwrap().flatten() {
            if let Ok(State::Running(process)) = Folder::new(entry.path()).state() {
                kill(process.pid);
            }
        }
    }
}

async fn connect(folder: &Path) -> Arc<dyn Launcher> {
    crate::connect(&format!("process://{}", folder.display())).await.unwrap()
}

fn script(id: &str, script: &str) -> Worker {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Worker { id: id.to_owned(), command, env: Vec::new(), ranks: 1 }
}

fn kill(pid: i32) {
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL);
}

/// Fields of `/proc/<pid>/stat` after the name: state, parent, process group, session, ...
fn stat(pid: i32) -> Vec<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').map(str::to_owned).collect()
}

fn parent(pid: i32) -> i32 {
    stat(pid)[1].parse().unwrap()
}

#[tokio::test]
async fn a_worker_outlives_its_launcher_and_is_known_to_the_next() {
    let mut here = Here::new().await;
    here.launcher.start(&script("a", "trap 'exit 5' TERM; echo up; while :; do sleep 0.02; done")).await.unwrap();
    here.launcher.start(&script("b", "exit 6")).await.unwrap();
    here.until("b", Status::Exited(Exit::Code(6))).await;
    let pid = here.pid("a").await;
    here.launcher = connect(here.folder.path()).await;
    assert_eq!(here.pid("a").await, pid);
    assert_eq!(here.launcher.status("b").await.unwrap(), Status::Exited(Exit::Code(6)));
    here.launcher.start(&script("a", "exit 1")).await.unwrap();
    assert_eq!(here.pid("a").await, pid);
    while here.launcher.log("a", 0).await.unwrap() != b"up\n" {
        tokio::time::sleep(TICK).await;
    }
    here.launcher.signal("a", Signal::Terminate).await.unwrap();
    assert_eq!(here.launcher.wait("a").await.unwrap(), Exit::Code(5));
}

/// Runs in a process of its own, which the tests below start and kill.
#[tokio::test]
#[ignore = "a part of other tests, which run it in a process of its own"]
async fn parent_to_be_killed() {
    let folder = std::env::var("TEST_FOLDER").unwrap();
    let launcher = connect(Path::new(&folder)).await;
    launcher.start(&script("a", "echo up; exec sleep 1000")).await.unwrap();
    std::future::pending().await
}

#[tokio::test]
async fn a_worker_outlives_the_kill_of_its_parent() {
    let here = Here::new().await;
    let mut parent = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "process::tests::parent_to_be_killed"])
        .env("TEST_FOLDER", here.folder.path())
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let up = async {
        while here.launcher.log("a", 0).await.unwrap() != b"up\n" {
            tokio::time::sleep(TICK).await;
        }
    };
    tokio::time::timeout(PATIENCE, up).await.unwrap();
    let pid = here.pid("a").await;
    parent.kill().await.unwrap();
    assert_eq!(here.pid("a").await, pid);
    here.launcher.start(&script("a", "exit 1")).await.unwrap();
    assert_eq!(here.pid("a").await, pid);
    here.launcher.signal("a", Signal::Kill).await.unwrap();
    assert_eq!(here.launcher.wait("a").await.unwrap(), Exit::Signal(9));
}

#[tokio::test]
async fn whenever_a_start_is_killed_the_next_ends_with_one_worker() {
    let here = Here::new().await;
    let worker = script("a", "echo up; exec sleep 1000");
    for round in 0..25 {
        let mut parent = tokio::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "process::tests::parent_to_be_killed"])
            .env("TEST_FOLDER", here.folder.path())
            .stdout(std::process::Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        // From the first sign of a start on, a little later each time.
        while !here.worker("a").path().exists() {
            tokio::task::yield_now().await;
        }
        for _ in 0..round * 20 {
            tokio::task::yield_now().await;
        }
        parent.kill().await.unwrap();
        here.launcher.start(&worker).await.unwrap();
        let pid = here.pid("a").await;
        let up = async {
            while here.launcher.log("a", 0).await.unwrap() != b"up\n" {
                tokio::time::sleep(TICK).await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await.unwrap();
        assert_eq!(here.pid("a").await, pid);
        here.launcher.signal("a", Signal::Kill).await.unwrap();
        assert_eq!(here.launcher.wait("a").await.unwrap(), Exit::Signal(9));
        // A second supervisor would still hold the lock, and its worker would have written a second line.
        let lock = async {
            while here.worker("a").lock().unwrap().is_none() {
                tokio::time::sleep(TICK).await;
            }
        };
        tokio::time::timeout(PATIENCE, lock).await.unwrap();
        assert_eq!(here.launcher.log("a", 0).await.unwrap(), b"up\n", "round {round}");
        here.launcher.reap("a").await.unwrap();
    }
}

#[tokio::test]
async fn a_worker_is_not_in_our_process_group() {
    let here = Here::new().await;
    here.launcher.start(&script("a", "exec sleep 1000")).await.unwrap();
    let pid = here.pid("a").await;
    let own = stat(std::process::id() as i32);
    assert_ne!(stat(pid)[2], own[2], "a Ctrl-C for us would reach it");
}

#[tokio::test]
async fn a_supervisor_that_is_told_to_end_stays_until_its_worker_does() {
    let here = Here::new().await;
    here.launcher.start(&script("a", "exec sleep 1000")).await.unwrap();
    let pid = here.pid("a").await;
    let supervisor = rustix::process::Pid::from_raw(parent(pid)).unwrap();
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::HUP, rustix::process::Signal::INT] {
        rustix::process::kill_process(supervisor, signal).unwrap();
    }
    here.launcher.signal("a", Signal::Terminate).await.unwrap();
    assert_eq!(here.launcher.wait("a").await.unwrap(), Exit::Signal(15));
}

#[tokio::test]
async fn a_worker_whose_supervisor_was_killed_runs_on_and_is_lost_when_it_ends() {
    let here = Here::new().await;
    here.launcher.start(&script("a", "exec sleep 1000")).await.unwrap();
    let pid = here.pid("a").await;
    kill(parent(pid));
    assert_eq!(here.pid("a").await, pid);
    here.launcher.start(&script("a", "exit 1")).await.unwrap();
    assert_eq!(here.pid("a").await, pid, "a second worker was started");
    here.launcher.signal("a", Signal::Kill).await.unwrap();
    assert_eq!(here.launcher.wait("a").await.unwrap(), Exit::Lost);
    here.launcher.start(&script("a", "exit 1")).await.unwrap();
    assert_eq!(here.launcher.status("a").await.unwrap(), Status::Exited(Exit::Lost));
    here.launcher.reap("a").await.unwrap();
    assert_eq!(here.launcher.status("a").await.unwrap(), Status::Unknown);
}

#[tokio::test]
async fn a_start_that_was_killed_halfway_is_done_by_the_next() {
    let here = Here::new().await;
    // What is there after each step of a start that gets no further.
    for (id, files) in
        [("a", &[][..]), ("b", &["lock"]), ("c", &["lock", "spec.json", "output.log"]), ("d", &["lock", "pid.part"])]
    {
        let folder = here.worker(id);
        folder.create().unwrap();
        for file in files {
            std::fs::write(folder.path().join(file), "").unwrap();
        }
        assert_eq!(here.launcher.status(id).await.unwrap(), Status::Unknown, "{id}");
        here.launcher.start(&script(id, "exit 4")).await.unwrap();
        assert_eq!(here.launcher.wait(id).await.unwrap(), Exit::Code(4), "{id}");
    }
}

#[tokio::test]
async fn who_starts_while_another_is_starting_waits_for_that_one() {
    let here = Here::new().await;
    let folder = here.worker("a");
    folder.create().unwrap();
    let lock = folder.lock().unwrap().unwrap();
    assert!(matches!(here.launcher.status("a").await.unwrap(), Status::Running { handle } if handle == "starting"));
    let second = script("a", "exit 1");
    let mut start = here.launcher.start(&second);
    assert!(tokio::time::timeout(TICK * 5, &mut start).await.is_err());
    let _other = supervisor::spawn(&folder, lock, &script("a", "exit 2")).unwrap();
    start.await.unwrap();
    assert_eq!(here.launcher.wait("a").await.unwrap(), Exit::Code(2));
}

#[tokio::test]
async fn a_process_that_merely_got_the_same_id_is_left_alone() {
    let here = Here::new().await;
    let mut stranger = tokio::process::Command::new("sleep").arg("1000").kill_on_drop(true).spawn().unwrap();
    let pid = stranger.id().unwrap() as i32;
    let right = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let boot = folder::boot_id();
    let mut fields: Vec<&str> = right.trim().split(' ').collect();
    fields[21] = "1";
    let earlier = fields.join(" ");
    for (id, line) in [("a", format!("{boot} {earlier}")), ("b", format!("another-boot {right}"))] {
        let folder = here.worker(id);
        folder.create().unwrap();
        std::fs::write(folder.path().join("lock"), "").unwrap();
        std::fs::write(folder.path().join("pid"), line).unwrap();
        assert_eq!(here.launcher.status(id).await.unwrap(), Status::Exited(Exit::Lost));
        here.launcher.signal(id, Signal::Kill).await.unwrap();
        here.launcher.reap(id).await.unwrap();
    }
    assert!(stranger.try_wait().unwrap().is_none(), "a stranger was killed");
    // The same file with nothing wrong in it does name the process.
    let folder = here.worker("c");
    folder.create().unwrap();
    std::fs::write(folder.path().join("pid"), format!("{boot} {right}")).unwrap();
    assert_eq!(here.pid("c").await, pid);
}

#[tokio::test]
async fn a_dead_process_that_nobody_buried_does_not_count_as_running() {
    let here = Here::new().await;
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id() as i32;
    while stat(pid)[0] != "Z" {
        tokio::time::sleep(TICK).await;
    }
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let folder = here.worker("a");
    folder.create().unwrap();
    std::fs::write(folder.path().join("pid"), format!("{} {line}", folder::boot_id())).unwrap();
    assert_eq!(here.launcher.status("a").await.unwrap(), Status::Exited(Exit::Lost));
    child.wait().unwrap();
}

#[tokio::test]
async fn our_own_supervisors_are_buried() {
    let here = Here::new().await;
    here.launcher.start(&script("a", "exec sleep 1000")).await.unwrap();
    let pid = here.pid("a").await;
    let supervisor = parent(pid);
    here.launcher.signal("a", Signal::Kill).await.unwrap();
    let buried = async {
        while Path::new(&format!("/proc/{supervisor}")).exists() {
            tokio::time::sleep(TICK).await;
        }
    };
    tokio::time::timeout(PATIENCE, buried).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_recognised() {
    let here = Here::new().await;
    let error = std::io::Error::from_raw_os_error(28);
    let launcher = ProcessLauncher::open(&format!("process://{}", here.folder.path().display())).await.unwrap();
    assert!(matches!(launcher.failed(here.folder.path(), &error), Error::DiskFull(_)));
}

#[tokio::test]
async fn secrets_of_the_environment_are_not_written_down() {
    let here = Here::new().await;
    let mut worker = script("a", "exit 0");
    worker.env.push(("API_KEY".to_owned(), "very-secret".to_owned()));
    here.launcher.start(&worker).await.unwrap();
    here.launcher.wait("a").await.unwrap();
    let spec = std::fs::read_to_string(here.worker("a").path().join("spec.json")).unwrap();
    assert!(spec.contains("API_KEY") && !spec.contains("very-secret"), "{spec}");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(here.worker("a").path()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
}

#[tokio::test]
async fn a_reap_that_was_killed_halfway_is_finished_at_the_next_start() {
    let here = Here::new().await;
    let half = here.folder.path().join(".reaped-a");
    std::fs::create_dir(&half).unwrap();
    std::fs::write(half.join("pid"), "").unwrap();
    connect(here.folder.path()).await;
    assert!(!half.exists());
}

#[tokio::test]
async fn a_url_that_cannot_be_opened_is_named_with_the_remedy() {
    let here = Here::new().await;
    let file = here.folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    for (url, hint) in [
        ("docker://host".to_owned(), "process:///path/to/folder"),
        ("process:".to_owned(), "absolute"),
        (format!("process://{}", file.display()), "file"),
    ] {
        let text = crate::connect(&url).await.map(drop).unwrap_err().to_string();
        assert!(text.contains(&url) && text.contains(hint), "{text}");
    }
    std::fs::remove_file(file).unwrap();
}
