//! The service as its callers see it: through its generated client, with real workers, and a registry that only takes notes.

mod families;
mod registry;
mod studies;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use tidemill_artifacts::Digest;
use tidemill_chassis::server::{Server, bind};
use tidemill_chassis::{Fault, Service, Settings};
use tidemill_platform::Platform;
use tidemill_proto::registry::v1::{CreateModelVersionRequest, RecordLineageRequest};
use tidemill_proto::training::v1::study_service_client::StudyServiceClient;
use tidemill_proto::training::v1::training_service_client::TrainingServiceClient;
use tidemill_proto::training::v1::*;
use tidemill_proto::r#type::v1::{State, TrainingSpec, architecture};
use tokio_util::sync::CancellationToken;
use tonic::Code;

use crate::worker::tests::world::{STEPS, put_dataset, spec};
use registry::Registry;

type Client = TrainingServiceClient<tidemill_chassis::transport::Channel>;

struct Sandbox {
    folder: tempfile::TempDir,
    platform: Platform,
    client: Client,
    studies: StudyServiceClient<tidemill_chassis::transport::Channel>,
    registry: Registry,
    dataset: Digest,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<()>,
}

impl Sandbox {
    async fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap()).await
    }

    /// The service over what another one left in a folder.
    async fn open(folder: tempfile::TempDir) -> Self {
        let program = worker_program(folder.path());
        let text = format!("[platform]\ndata_dir = {:?}\nworker_program = {program:?}\n", folder.path().join("data"));
        let defaults = [tidemill_platform::DEFAULTS, crate::DEFAULTS];
        let settings = Settings::from_layers(&defaults, Some(("test".to_owned(), text)), Default::default()).unwrap();
        let platform = tokio::time::timeout(Duration::from_secs(20), connect(&settings));
        let platform = platform.await.expect("the service before lets go of its data");
        let registry = Registry::default();
        platform.clients.add("registry", registry.channel());
        let service = crate::build(&settings, &platform).unwrap();
        let client = TrainingServiceClient::new(service.local_channel().unwrap());
        let studies = StudyServiceClient::new(service.local_channel().unwrap());
        let relay = Service::new("relay").task(platform.relay());
        let server = Server {
            grpc_address: "127.0.0.1:0".to_owned(),
            http_address: "127.0.0.1:0".to_owned(),
            api_keys_file: String::new(),
            shutdown_grace_seconds: 8,
            max_message_bytes: 1 << 20,
            ..Server::default()
        };
        let (bound, stop) = (bind(&server, false).await.unwrap(), CancellationToken::new());
        let token = stop.clone();
        let served = tokio::spawn(async move { bound.serve(vec![relay, service], token).await.unwrap() });
        let written = tempfile::tempdir_in(folder.path()).unwrap();
        let dataset = put_dataset(&platform.artifacts, written.path()).await;
        Self { folder, platform, client, studies, registry, dataset, stop, served }
    }

    fn job(&self, spec: TrainingSpec) -> TrainingJob {
        TrainingJob {
            spec: Some(spec),
            dataset_digest: self.dataset.to_string(),
            model: "models/small".to_owned(),
            ..TrainingJob::default()
        }
    }

    async fn create(&self, id: &str, job: TrainingJob) -> Result<TrainingJob, Fault> {
        let request = CreateTrainingJobRequest {
            training_job_id: id.to_owned(),
            training_job: Some(job),
            request_id: format!("request-{id}"),
        };
        Ok(self.client.clone().create_training_job(request).await?.into_inner())
    }

    /// Follows a job to its end, with a look at each of its states.
    async fn follow(&self, name: &str, mut look: impl FnMut(&TrainingJob)) -> TrainingJob {
        let request = WatchTrainingJobRequest { name: name.to_owned() };
        let mut states = self.client.clone().watch_training_job(request).await.unwrap().into_inner();
        let mut last = TrainingJob::default();
        let all = async {
            while let Some(job) = states.next().await {
                last = job.unwrap();
                look(&last);
            }
        };
        tokio::time::timeout(Duration::from_secs(120), all).await.expect("the job ends");
        last
    }

    /// Stops the service; what it wrote remains.
    async fn end(self) -> tempfile::TempDir {
        self.stop.cancel();
        self.served.await.unwrap();
        self.folder
    }
}

/// What a service before held is let go a moment after it has ended, with the last of its streams.
async fn connect(settings: &Settings) -> Platform {
    use tidemill_platform::Error::EventLog;
    loop {
        match Platform::connect(settings).await {
            Err(EventLog(tidemill_eventlog::Error::InUse { .. })) => tokio::task::yield_now().await,
            connected => return connected.unwrap(),
        }
    }
}

/// A program that runs this test binary as a worker.
fn worker_program(folder: &Path) -> std::path::PathBuf {
    let path = folder.join("worker.sh");
    let exe = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\nexport OMP_NUM_THREADS=1\nexec {} worker::tests::worker_process --exact --nocapture\n",
        exe.display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn a_job_ends_with_a_registered_model_and_a_second_one_killed_on_its_way_gives_the_same() {
    let sandbox = Sandbox::new().await;
    // Long enough to be killed on its way.
    let spec = TrainingSpec { steps: 20 * STEPS, checkpoint_every_steps: 70, ..spec() };
    let job = sandbox.create("one", sandbox.job(spec.clone())).await.unwrap();
    assert_eq!((job.name.as_str(), job.state()), ("trainingJobs/one", State::Pending));
    assert_eq!(sandbox.create("one", sandbox.job(spec.clone())).await.unwrap().uid, job.uid, "a retry creates nothing");
    let done = sandbox.follow(&job.name, |_| {}).await;
    assert_eq!(done.state(), State::Succeeded, "{:?}", done.error);
    assert_eq!((done.step, done.model_version.as_str()), (spec.steps, "models/small/versions/1"));
    assert_eq!(done.history.last().unwrap().step, spec.steps);
    assert!(done.history.iter().any(|point| point.metrics.contains_key("validation_loss")));
    assert!(done.start_time.is_some() && done.end_time.is_some());
    let plot = sandbox.platform.artifacts.get(&done.plot_digest.parse().unwrap()).await.unwrap();
    assert!(plot.starts_with(b"<svg"));
    let versions: Vec<CreateModelVersionRequest> = sandbox.registry.calls("CreateModelVersion");
    let version = versions[0].model_version.clone().unwrap();
    assert_eq!(
        (version.digest.as_str(), version.training_job.as_str()),
        (done.model_digest.as_str(), "trainingJobs/one")
    );
    assert_eq!(
        (version.dataset_digest, version.tokenizer_digest.as_str()),
        (sandbox.dataset.to_string(), "sha256:tokenizer")
    );
    assert!(version.parameter_count > 10_000 && uuid::Uuid::parse_str(&versions[0].request_id).is_ok());
    let lineage: Vec<RecordLineageRequest> = sandbox.registry.calls("RecordLineage");
    assert!(
        lineage[0]
            .edges
            .iter()
            .any(|edge| edge.parent == sandbox.dataset.to_string() && edge.child == done.model_digest)
    );

    let twin = sandbox.create("two", sandbox.job(spec)).await.unwrap();
    let mut killed = None;
    let done_too = sandbox
        .follow(&twin.name, |job| {
            if killed.is_none() && job.progress.as_ref().is_some_and(|progress| progress.done_count > 0) {
                killed = job.worker.parse::<i32>().ok();
                let pid = killed.and_then(rustix::process::Pid::from_raw);
                // One that has ended meanwhile cannot be killed.
                let _ended = pid.map(|pid| rustix::process::kill_process(pid, rustix::process::Signal::KILL));
            }
        })
        .await;
    assert_eq!(done_too.state(), State::Succeeded, "{:?}", done_too.error);
    assert_eq!((done_too.restart_count, done_too.model_digest), (1, done.model_digest));
    sandbox.end().await;
}

#[tokio::test]
async fn every_mistake_in_a_job_is_told_at_once() {
    let sandbox = Sandbox::new().await;
    let text = sandbox.platform.artifacts.put("no manifest").await.unwrap().0;
    let wrong = TrainingJob {
        spec: Some(TrainingSpec { steps: 0, sequence_length: 64, ..spec() }),
        dataset_digest: Digest::of("nothing").to_string(),
        base_model_digest: text.to_string(),
        model: "models/absent".to_owned(),
        ..TrainingJob::default()
    };
    let fault = sandbox.create("Not-An-Id", wrong).await.unwrap_err();
    assert_eq!(fault.code, Code::InvalidArgument);
    let fields: Vec<&str> = fault.fields.iter().map(|(field, _)| field.as_str()).collect();
    let expected =
        ["training_job_id", "spec.steps", "spec.schedule.warmup_steps", "model", "dataset_digest", "base_model_digest"];
    assert_eq!(fields, expected, "{fault}");

    let long = sandbox.job(TrainingSpec { sequence_length: 33, ..spec() });
    let fault = sandbox.create("", long).await.unwrap_err();
    assert!(fault.message.contains("more than the architecture's context of 32"), "{fault}");
    let fault = sandbox.create("", TrainingJob::default()).await.unwrap_err();
    assert_eq!(fault.fields.len(), 3, "{fault}");
    sandbox.end().await;
}

#[tokio::test]
async fn a_job_that_needs_more_memory_than_there_is_says_what_to_lower_and_the_next_one_runs() {
    let sandbox = Sandbox::new().await;
    let mut vast = spec();
    let shape = vast.architecture.as_mut().and_then(|architecture| architecture.architecture.as_mut()).unwrap();
    // A terabyte for what the MLP holds of one batch; the weights are small.
    let architecture::Architecture::Llama(llama) = shape else { panic!("{shape:?}") };
    llama.intermediate_size = 1 << 17;
    let vast = TrainingSpec { batch_size: 1 << 15, sequence_length: 32, ..vast };
    let job = sandbox.create("vast", sandbox.job(vast)).await.unwrap();
    let failed = sandbox.follow(&job.name, |_| {}).await;
    let error = failed.error.clone().unwrap_or_default();
    assert_eq!((failed.state(), failed.restart_count), (State::Failed, 0), "{error:?}");
    assert!(error.message.contains("not enough memory; use a smaller batch_size"), "{error:?}");
    let job = sandbox.create("usual", sandbox.job(spec())).await.unwrap();
    assert_eq!(sandbox.follow(&job.name, |_| {}).await.state(), State::Succeeded);
    sandbox.end().await;
}

#[tokio::test]
async fn a_cancelled_job_stops_and_its_log_and_checkpoints_remain() {
    let sandbox = Sandbox::new().await;
    let long = TrainingSpec { steps: 100_000, checkpoint_every_steps: 20, ..spec() };
    let job = sandbox.create("long", sandbox.job(long)).await.unwrap();
    let request = ReadTrainingJobLogRequest { name: job.name.clone(), follow: true };
    let log = sandbox.client.clone().read_training_job_log(request).await.unwrap().into_inner();
    let log = tokio::spawn(log.map(|text| text.unwrap().text).collect::<String>());
    let (platform, uid) = (sandbox.platform.clone(), job.uid.clone());
    let saved = async {
        while platform.artifacts.list(&crate::checkpoints::prefix(&uid)).await.unwrap().len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), saved).await.expect("checkpoints appear");
    let request = CancelTrainingJobRequest { name: job.name.clone() };
    let cancelled = sandbox.client.clone().cancel_training_job(request).await.unwrap().into_inner();
    assert_eq!(cancelled.state(), State::Cancelled);
    let text = tokio::time::timeout(Duration::from_secs(20), log).await.expect("the log ends with the job").unwrap();
    assert!(text.contains("training begins") && text.contains("checkpoint stored"), "{text}");
    assert!(!text.contains("progress {"), "{text}");

    let list = async |page_size: i32, page_token: &str| {
        let request = ListCheckpointsRequest { parent: job.name.clone(), page_size, page_token: page_token.to_owned() };
        sandbox.client.clone().list_checkpoints(request).await.unwrap().into_inner()
    };
    let all = list(0, "").await;
    assert!(all.checkpoints.len() >= 2 && all.next_page_token.is_empty());
    assert!(all.checkpoints.is_sorted_by(|a, b| a.step > b.step), "newest first: {all:?}");
    let first = list(1, "").await;
    let second = list(1, &first.next_page_token).await;
    assert_eq!([&first.checkpoints[0], &second.checkpoints[0]], [&all.checkpoints[0], &all.checkpoints[1]]);
    assert!(sandbox.folder.path().exists());
    sandbox.end().await;
}
