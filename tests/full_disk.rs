//! A full disk: the run waits and says so, nothing is lost or half-written, and it goes on once there is room.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tidemill_proto::pipeline::v1 as pipeline;
use tidemill_proto::r#type::v1::State;
use tidemill_sandbox::{Clients, begin_run, corpus, eventually, mini_pipeline, program, toml};
use tidemill_standalone::Endpoints;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_room_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut disk = Disk::of(folder.path());
    let settings = folder.path().join("tidemill.toml");
    std::fs::write(&settings, toml(&disk.path.join("data"), "").unwrap()).unwrap();
    let command = format!("mkdir {}/data && exec {}", disk.path.display(), program("tidemilld").unwrap().display());
    disk.mount(&command, &[("TIDEMILL_CONFIG", settings.to_str().unwrap())]);
    let endpoints: Endpoints = eventually("tidemilld's start", async || {
        disk.runs();
        serde_json::from_str(&std::fs::read_to_string(disk.inside().join("data/tidemilld.json")).ok()?).ok()
    })
    .await
    .unwrap();
    waits_and_goes_on(&disk, &Clients::connect(&endpoints).unwrap()).await;
    disk.terminate().await;
}

/// Here the disk is where services and workers have their scratch space; what counts is in PostgreSQL and S3.
#[tokio::test(flavor = "multi_thread")]
async fn so_does_one_over_real_servers() {
    if std::env::var("TIDEMILL_TEST_KAFKA").is_err() {
        eprintln!("skipped: a full disk over real servers: TIDEMILL_TEST_KAFKA is not set; run make deps-up");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut disk = Disk::of(folder.path());
    let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (grpc, http) = (free(), free());
    let distributed = program("tidemill-distributed").unwrap();
    disk.mount(&format!("exec {} {} 1 {grpc} {http}", distributed.display(), disk.path.display()), &[]);
    let clients = Clients::connect(&Endpoints { pid: 0, grpc, http, admin: None }).unwrap();
    eventually("every service", async || {
        disk.runs();
        disk.log().contains("\nready\n").then_some(())
    })
    .await
    .unwrap();
    waits_and_goes_on(&disk, &clients).await;
    disk.terminate().await;
}

/// Runs a pipeline, fills the disk, waits until it says so, makes room, and waits for the end.
async fn waits_and_goes_on(disk: &Disk, clients: &Clients) {
    clients.ready().await.unwrap();
    let texts = tempfile::tempdir().unwrap();
    let spec = mini_pipeline("code", &corpus(texts.path()).unwrap());
    begin_run(clients, spec).await.unwrap();

    // Leaves room for the small writes of the store, not for artifacts.
    let filler = disk.inside().join("filler");
    fill(&filler, 200_000);
    let get = async || {
        let request = pipeline::GetPipelineRunRequest { name: "pipelines/code/runs/1".to_owned() };
        Some(clients.pipeline.clone().get_pipeline_run(request).await.ok()?.into_inner())
    };
    let saw = eventually("a word about the full disk", async || {
        let run = get().await?;
        assert_ne!(run.state(), State::Succeeded, "the disk was never full");
        let said = format!("{:?} {:?}", run.progress, run.error);
        (said.contains("full") || disk.log().contains("full; free space")).then_some(run)
    })
    .await
    .unwrap();
    assert_ne!(saw.state(), State::Succeeded);

    std::fs::remove_file(filler).unwrap();
    let ended = eventually("the end of the run", async || {
        let run = get().await?;
        (run.state() != State::Pending && run.state() != State::Running).then_some(run)
    })
    .await
    .unwrap();
    assert_eq!(ended.state(), State::Succeeded, "{:?}", ended.error);
}

/// A small disk that one program and its children see, in a mount namespace of their own.
struct Disk {
    path: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Disk {
    fn of(folder: &Path) -> Self {
        let path = folder.join("disk");
        std::fs::create_dir(&path).unwrap();
        Self { path, log: folder.join("log"), child: None }
    }

    fn mount(&mut self, command: &str, environment: &[(&str, &str)]) {
        let script = format!("mount -t tmpfs -o size=48m tmpfs {} && {command}", self.path.display());
        let log = std::fs::File::create(&self.log).unwrap();
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).envs(environment.iter().copied());
        unshare.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        self.child = Some(unshare.spawn().unwrap());
    }

    /// The disk as seen from outside.
    fn inside(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.child.as_ref().unwrap().id(), self.path.display()))
    }

    fn runs(&mut self) {
        let ended = self.child.as_mut().unwrap().try_wait().unwrap();
        assert!(ended.is_none(), "{}", self.log());
    }

    /// What the program said, and what services that it started said into files on the disk.
    fn log(&self) -> String {
        let mut text = std::fs::read_to_string(&self.log).unwrap();
        for entry in std::fs::read_dir(self.inside()).into_iter().flatten().flatten() {
            text.push_str(&std::fs::read_to_string(entry.path().join("log")).unwrap_or_default());
        }
        text
    }

    async fn terminate(mut self) {
        let mut child = self.child.take().unwrap();
        ask_to_end(&child);
        eventually("the end after SIGTERM", async || child.try_wait().ok().flatten()).await.unwrap();
    }
}

fn ask_to_end(child: &Child) {
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            if matches!(child.try_wait(), Ok(None)) {
                // Not killed: it has services to end.
                ask_to_end(&child);
            }
            let _status = child.wait();
        }
    }
}

/// Writes until the disk has only `leave` bytes left.
fn fill(path: &std::path::Path, leave: u64) {
    use std::io::Write;
    let mut file = std::fs::File::create(path).unwrap();
    let block = vec![b'x'; 1 << 16];
    while file.write_all(&block).is_ok() {}
    let size = file.metadata().unwrap().len();
    file.set_len(size - leave).unwrap();
}
