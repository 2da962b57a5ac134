use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use tidemill_chassis::{Fault, Service, Settings, server};
use tidemill_proto::preprocessing::v1::PreprocessingJob;
use tidemill_proto::topics;
use tidemill_proto::r#type::v1::{Progress, State};
use tokio_util::sync::CancellationToken;

use super::*;

/// Does what the job's id says.
struct ByName {
    attempts: Arc<AtomicU32>,
}

#[async_trait]
impl Runner<PreprocessingJob> for ByName {
    async fn run(
        &self,
        mut job: PreprocessingJob,
        context: &Context<PreprocessingJob>,
    ) -> Result<PreprocessingJob, Fault> {
        let attempt = self.attempts.fetch_add(1, Ordering::SeqCst) + 1;
        context.progress(Progress { phase: "working".to_owned(), done_count: 1, ..Default::default() });
        match names::last_id(&job.name.clone()) {
            "fails" => Err(Fault::invalid("recipe", "is wrong")),
            "panics" => panic!("as asked"),
            "stumbles" if attempt < 3 => Err(Fault::unavailable("not yet")),
            "waits" => {
                context.cancelled().cancelled().await;
                Err(Fault::unavailable("the work was stopped"))
            }
            _ => {
                job.digest = format!("sha256:{attempt}");
                Ok(job)
            }
        }
    }
}

struct Bench {
    jobs: Jobs<PreprocessingJob>,
    platform: Platform,
    attempts: Arc<AtomicU32>,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "[platform]\ndata_dir = {:?}\n[server]\ngrpc_address = \"127.0.0.1:0\"\n",
            folder.path().join("data")
        );
        let settings =
            Settings::from_layers(&[crate::DEFAULTS], Some(("test".to_owned(), text)), BTreeMap::new()).unwrap();
        let platform = Platform::connect(&settings).await.unwrap();
        let jobs = Jobs::<PreprocessingJob>::new(
            &platform,
            "preprocessing",
            topics::PREPROCESSING_TASKS,
            topics::PREPROCESSING_JOB_EVENTS,
        );
        let attempts = Arc::new(AtomicU32::new(0));
        let stop = CancellationToken::new();
        let service =
            Service::new("test").task(platform.relay()).task(jobs.task(2, ByName { attempts: attempts.clone() }));
        let bound = server::bind(&settings.section("server").unwrap(), false).await.unwrap();
        tokio::spawn(bound.serve(vec![service], stop.clone()));
        Self { jobs, platform, attempts, stop, _folder: folder }
    }

    async fn create(&self, id: &str) -> PreprocessingJob {
        self.jobs.create(PreprocessingJob::default(), "", id, "").await.unwrap()
    }

    async fn end(&self, name: &str) -> PreprocessingJob {
        let changes: Vec<_> = self.jobs.watch(name).await.unwrap().collect().await;
        changes.into_iter().last().unwrap().unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[tokio::test]
async fn a_job_runs_and_its_end_is_told_once() {
    let bench = Bench::start().await;
    let job = bench.create("works").await;
    assert_eq!(job.state(), State::Pending);
    let done = bench.end(&job.name).await;
    assert_eq!((done.state(), done.digest.as_str()), (State::Succeeded, "sha256:1"));
    assert!(done.start_time.is_some() && done.end_time.is_some());

    let mut events = bench.platform.log.subscribe(&[topics::PREPROCESSING_JOB_EVENTS], "test").await.unwrap();
    let delivery = tokio::time::timeout(Duration::from_secs(10), events.next()).await.unwrap().unwrap();
    let ended = JobEnded::decode(delivery.event.payload.clone()).unwrap();
    assert_eq!((ended.job.as_str(), ended.digest.as_str()), (job.name.as_str(), "sha256:1"));
    events.commit(&delivery).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(300), events.next()).await.is_err(), "a second event");
}

#[tokio::test]
async fn the_same_request_gives_the_same_job() {
    let bench = Bench::start().await;
    let request = "00000000-0000-4000-8000-000000000001";
    let first = bench.jobs.create(PreprocessingJob::default(), "", "", request).await.unwrap();
    let again = bench.jobs.create(PreprocessingJob::default(), "", "", request).await.unwrap();
    assert_eq!(first.uid, again.uid);
    bench.end(&first.name).await;
    assert_eq!(bench.attempts.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_fault_fails_the_job_and_a_transient_one_tries_again() {
    let bench = Bench::start().await;
    let failed = bench.end(&bench.create("fails").await.name).await;
    assert_eq!(failed.state(), State::Failed);
    assert_eq!(failed.error.unwrap().message, "recipe: is wrong");
    let panicked = bench.end(&bench.create("panics").await.name).await;
    assert_eq!(panicked.error.unwrap().code, tonic::Code::Internal as i32);
    bench.attempts.store(0, Ordering::SeqCst);
    let done = bench.end(&bench.create("stumbles").await.name).await;
    assert_eq!(done.digest, "sha256:3");
}

#[tokio::test]
async fn a_cancelled_job_stops_and_stays_cancelled() {
    let bench = Bench::start().await;
    let job = bench.create("waits").await;
    let mut changes = Box::pin(bench.jobs.watch(&job.name).await.unwrap());
    while let Some(change) = changes.next().await {
        if change.unwrap().progress.is_some_and(|progress| progress.phase == "working") {
            break;
        }
    }
    let cancelled = bench.jobs.cancel(&job.name).await.unwrap();
    assert_eq!(cancelled.state(), State::Cancelled);
    assert_eq!(bench.end(&job.name).await.state(), State::Cancelled);
    assert_eq!(bench.jobs.cancel(&job.name).await.unwrap().state(), State::Cancelled);
    // The next job gets the member that the cancelled one held.
    assert_eq!(bench.end(&bench.create("works").await.name).await.state(), State::Succeeded);
}
