//! How `tidemilld` starts and stops: taken ports, a data directory in use, addresses that others reach, SIGTERM in every step.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tidemill_proto::pipeline::v1 as pipeline;
use tidemill_proto::r#type::v1::State;
use tidemill_sandbox::{Clients, Spawned, corpus, mini_pipeline, toml};

struct Place {
    folder: tempfile::TempDir,
    data: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        Self { folder, data }
    }

    fn settings(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    }

    /// Starts a daemon that should not come up; returns its exit code and what it said.
    fn refused(&self, text: &str) -> (i32, String) {
        let file = self.settings("refused.toml", text);
        let child = Spawned::spawn(&file, Stdio::null(), Stdio::piped()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_named_with_the_remedy() {
    let place = Place::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let text = toml(&place.data, "").unwrap().replacen("127.0.0.1:0", &address, 1);
    let (code, said) = place.refused(&text);
    assert_ne!(code, 0);
    assert!(said.contains(&address) && said.contains("server.grpc_address"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_on_the_same_data_directory_is_refused() {
    let place = Place::new();
    let text = toml(&place.data, "").unwrap();
    let first = Spawned::start(&place.settings("first.toml", &text), &place.data).await.unwrap();
    let (code, said) = place.refused(&text);
    assert_ne!(code, 0);
    assert!(said.contains("in use") && said.contains(&first.endpoints.pid.to_string()), "{said}");
    Clients::connect(&first.endpoints).unwrap().ready().await.unwrap();
    first.terminate().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_others_reach_needs_api_keys() {
    let place = Place::new();
    let open = toml(&place.data, "").unwrap().replace("127.0.0.1:0", "0.0.0.0:0");
    let (code, said) = place.refused(&open);
    assert_eq!(code, 64);
    assert!(said.contains("api_keys_file"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_settings_are_all_listed_and_end_with_usage() {
    let place = Place::new();
    let more = "[gateway]\nstoer_answers = true\n[nonsense]\nkey = 1\n[telemetry]\nfilter = []\n";
    let (code, said) = place.refused(&toml(&place.data, more).unwrap());
    assert_eq!(code, 64);
    for word in ["gateway.stoer_answers", "nonsense.key", "telemetry.filter"] {
        assert!(said.contains(word), "{word} is not in {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_in_every_step_stops_cleanly_and_the_run_goes_on_afterwards() {
    let place = Place::new();
    let texts = tempfile::tempdir().unwrap();
    let settings = place.settings("tidemill.toml", &toml(&place.data, "").unwrap());
    let mut daemon = Spawned::start(&settings, &place.data).await.unwrap();
    let mut clients = Clients::connect(&daemon.endpoints).unwrap();
    clients.ready().await.unwrap();
    let spec = mini_pipeline("code", &corpus(texts.path()).unwrap());
    let create = pipeline::CreatePipelineRequest {
        pipeline_id: "code".to_owned(),
        pipeline: Some(pipeline::Pipeline { spec: Some(spec), ..Default::default() }),
        ..Default::default()
    };
    clients.pipeline.create_pipeline(create).await.unwrap();
    let run = pipeline::CreatePipelineRunRequest {
        parent: "pipelines/code".to_owned(),
        pipeline_run: Some(Default::default()),
        ..Default::default()
    };
    clients.pipeline.create_pipeline_run(run).await.unwrap();

    let mut stopped = Vec::new();
    let ended = loop {
        let request = pipeline::GetPipelineRunRequest { name: "pipelines/code/runs/1".to_owned() };
        let run = clients.pipeline.get_pipeline_run(request).await.unwrap().into_inner();
        if run.state() != State::Pending && run.state() != State::Running {
            break run;
        }
        let step = run.steps.iter().find(|step| step.state() == State::Running).map(|step| step.id.clone());
        match step {
            Some(step) if !stopped.contains(&step) => {
                let took = daemon.terminate().await.unwrap();
                assert!(took < Duration::from_secs(10), "stopping in {step} took {took:?}");
                stopped.push(step);
                daemon = Spawned::start(&settings, &place.data).await.unwrap();
                clients = Clients::connect(&daemon.endpoints).unwrap();
                clients.ready().await.unwrap();
            }
            _ => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    };
    assert_eq!(ended.state(), State::Succeeded, "{:?}", ended.error);
    for step in ["ingest", "preprocess", "train", "evaluate"] {
        assert!(stopped.iter().any(|s| s == step), "SIGTERM never met {step}: {stopped:?}");
    }
    daemon.terminate().await.unwrap();
}
