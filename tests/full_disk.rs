//! A full disk: the run waits and says so, nothing is lost or half-written, and it goes on once there is room.

use std::process::{Command, Stdio};

use tidemill_proto::pipeline::v1 as pipeline;
use tidemill_proto::r#type::v1::State;
use tidemill_sandbox::{Clients, corpus, mini_pipeline, program, toml};
use tidemill_standalone::Endpoints;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_room_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let texts = tempfile::tempdir().unwrap();
    let data = folder.path().join("disk");
    std::fs::create_dir(&data).unwrap();
    let settings = folder.path().join("tidemill.toml");
    std::fs::write(&settings, toml(&data.join("data"), "").unwrap()).unwrap();

    // A mount namespace of its own, so that the small disk is seen by the daemon alone.
    let script = format!(
        "mount -t tmpfs -o size=48m tmpfs {0} && mkdir {0}/data && exec {1}",
        data.display(),
        program("tidemilld").unwrap().display()
    );
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).env("TIDEMILL_CONFIG", &settings);
    let log = std::fs::File::create(folder.path().join("log")).unwrap();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    let inside = std::path::PathBuf::from(format!("/proc/{}/root{}", child.id(), data.display()));

    let endpoints: Endpoints = tidemill_sandbox::eventually("tidemilld's start", async || {
        assert!(child.try_wait().unwrap().is_none(), "{}", std::fs::read_to_string(folder.path().join("log")).unwrap());
        serde_json::from_str(&std::fs::read_to_string(inside.join("data/tidemilld.json")).ok()?).ok()
    })
    .await
    .unwrap();
    let clients = Clients::connect(&endpoints).unwrap();
    clients.ready().await.unwrap();

    let spec = mini_pipeline("code", &corpus(texts.path()).unwrap());
    let create = pipeline::CreatePipelineRequest {
        pipeline_id: "code".to_owned(),
        pipeline: Some(pipeline::Pipeline { spec: Some(spec), ..Default::default() }),
        ..Default::default()
    };
    clients.pipeline.clone().create_pipeline(create).await.unwrap();
    let run = pipeline::CreatePipelineRunRequest {
        parent: "pipelines/code".to_owned(),
        pipeline_run: Some(Default::default()),
        ..Default::default()
    };
    clients.pipeline.clone().create_pipeline_run(run).await.unwrap();

    // Leaves room for the small writes of the store, not for artifacts.
    fill(&inside.join("filler"), 200_000);
    let get = async || {
        let request = pipeline::GetPipelineRunRequest { name: "pipelines/code/runs/1".to_owned() };
        Some(clients.pipeline.clone().get_pipeline_run(request).await.ok()?.into_inner())
    };
    let saw = tidemill_sandbox::eventually("a word about the full disk", async || {
        let run = get().await?;
        assert_ne!(run.state(), State::Succeeded, "the disk was never full");
        let said = format!("{:?} {:?}", run.progress, run.error);
        let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
        (said.contains("full") || log.contains("full; free space")).then_some(run)
    })
    .await
    .unwrap();
    assert_ne!(saw.state(), State::Succeeded);

    std::fs::remove_file(inside.join("filler")).unwrap();
    let ended = tidemill_sandbox::eventually("the end of the run", async || {
        let run = get().await?;
        (run.state() != State::Pending && run.state() != State::Running).then_some(run)
    })
    .await
    .unwrap();
    assert_eq!(ended.state(), State::Succeeded, "{:?}", ended.error);
    let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    tidemill_sandbox::eventually("the end after SIGTERM", async || child.try_wait().ok().flatten()).await.unwrap();
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
