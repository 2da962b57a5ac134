//! The service over its generated client, with small servers in the place of the others.

mod feedback;
mod peer;
pub(crate) mod sample;
mod turns;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tidemill_chassis::server::{self, Server};
use tidemill_chassis::transport::Channel;
use tidemill_chassis::{Service, Settings};
use tidemill_platform::Platform;
use tidemill_proto::Job;
use tidemill_proto::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use tidemill_proto::pipeline::v1::*;
use tidemill_proto::r#type::v1::State;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use world::World;

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running pipeline service over a data directory and a world.
struct Running {
    client: PipelineServiceClient<Channel>,
    platform: Platform,
    stop: CancellationToken,
    served: JoinHandle<Result<(), server::Error>>,
}

impl Running {
    async fn start(data: &tempfile::TempDir, world: &Arc<World>) -> Self {
        let data_dir = data.path().to_str().unwrap().to_owned();
        let env = BTreeMap::from([("TIDEMILL__PLATFORM__DATA_DIR".to_owned(), data_dir)]);
        let settings = Settings::from_layers(&[tidemill_platform::DEFAULTS], None, env).unwrap();
        let platform = eventually("the data directory is free", async || Platform::connect(&settings).await.ok()).await;
        for name in ["ingestion", "preprocessing", "training", "evaluation", "registry", "inference"] {
            platform.clients.add(name, world.channel());
        }
        let service = crate::build(&settings, &platform).unwrap();
        let client = PipelineServiceClient::new(service.local_channel().unwrap());
        let listen = Server { grpc_address: "127.0.0.1:0".to_owned(), ..settings.section("server").unwrap() };
        let bound = server::bind(&listen, false).await.unwrap();
        let (stop, relay) = (CancellationToken::new(), Service::new("relay").task(platform.relay()));
        let served = tokio::spawn(bound.serve(vec![service, relay], stop.clone()));
        Self { client, platform, stop, served }
    }

    /// Stops the process, as far as anybody outside can see.
    async fn stop(self) {
        self.stop.cancel();
        self.served.await.unwrap().unwrap();
    }

    async fn pipeline(&mut self, spec: PipelineSpec) -> Pipeline {
        let pipeline = Pipeline { spec: Some(spec), ..Pipeline::default() };
        let request = CreatePipelineRequest { pipeline: Some(pipeline), ..CreatePipelineRequest::default() };
        self.client.create_pipeline(request).await.unwrap().into_inner()
    }

    async fn begin(&mut self, pipeline: &str, request_id: &str) -> PipelineRun {
        let request = CreatePipelineRunRequest {
            parent: format!("pipelines/{pipeline}"),
            pipeline_run: Some(PipelineRun::default()),
            request_id: request_id.to_owned(),
            ..CreatePipelineRunRequest::default()
        };
        self.client.create_pipeline_run(request).await.unwrap().into_inner()
    }

    async fn get(&self, run: &str) -> Option<PipelineRun> {
        let request = GetPipelineRunRequest { name: run.to_owned() };
        self.client.clone().get_pipeline_run(request).await.ok().map(tonic::Response::into_inner)
    }

    async fn ended(&self, run: &str) -> PipelineRun {
        eventually("the run ends", async || self.get(run).await.filter(Job::ended)).await
    }

    /// Runs a pipeline to its end.
    async fn turn(&mut self, pipeline: &str) -> PipelineRun {
        let run = self.begin(pipeline, "").await;
        self.ended(&run.name).await
    }

    async fn read(&self, pipeline: &str) -> Pipeline {
        let request = GetPipelineRequest { name: format!("pipelines/{pipeline}") };
        self.client.clone().get_pipeline(request).await.unwrap().into_inner()
    }
}

async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(value) = condition().await {
            return value;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: not within {} s", PATIENCE.as_secs());
}

fn fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let bad = details.bad_request().unwrap_or_else(|| panic!("{status:?} names no fields"));
    bad.field_violations.iter().map(|violation| violation.field.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_document_is_refused_with_all_its_mistakes() {
    let (data, world) = (tempfile::tempdir().unwrap(), World::new());
    let mut running = Running::start(&data, &world).await;
    let mut spec = sample::pipeline("demo");
    spec.training.as_mut().unwrap().steps = 0;
    spec.serving.as_mut().unwrap().model = String::new();
    let pipeline = Some(Pipeline { spec: Some(spec), ..Pipeline::default() });
    let request = CreatePipelineRequest { pipeline_id: "other".to_owned(), pipeline, ..Default::default() };
    let status = running.client.create_pipeline(request).await.unwrap_err();
    assert_eq!(fields(&status), ["spec.training.steps", "spec.serving.model", "pipeline_id"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_is_replaced_only_with_its_present_etag_and_keeps_its_count() {
    let (data, world) = (tempfile::tempdir().unwrap(), World::new());
    let mut running = Running::start(&data, &world).await;
    let first = running.pipeline(sample::pipeline("demo")).await;
    running.turn("demo").await;
    let mut spec = sample::pipeline("demo");
    spec.training.as_mut().unwrap().steps = 99;
    let stale = Pipeline { spec: Some(spec), ..first };
    let request = UpdatePipelineRequest { pipeline: Some(stale.clone()) };
    assert_eq!(running.client.update_pipeline(request).await.unwrap_err().code(), Code::Aborted);
    let request = UpdatePipelineRequest { pipeline: Some(Pipeline { etag: String::new(), ..stale }) };
    let updated = running.client.update_pipeline(request).await.unwrap().into_inner();
    assert_eq!((updated.spec.unwrap().training.unwrap().steps, updated.run_count), (99, 1));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_numbered_and_a_retried_request_begins_one() {
    let (data, world) = (tempfile::tempdir().unwrap(), World::new());
    let mut running = Running::start(&data, &world).await;
    running.pipeline(sample::pipeline("demo")).await;
    let first = running.begin("demo", "r1").await;
    assert_eq!(first.name, "pipelines/demo/runs/1");
    assert_eq!(running.begin("demo", "r1").await.uid, first.uid);
    assert_eq!(running.begin("demo", "r2").await.name, "pipelines/demo/runs/2");
    assert_eq!(running.read("demo").await.run_count, 2);
    for run in ["pipelines/demo/runs/1", "pipelines/demo/runs/2"] {
        assert_eq!(running.ended(run).await.state(), State::Succeeded);
    }
    running.stop().await;
}
