use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use tidemill_chassis::{Fault, Service, Settings, server};
use tidemill_proto::topics;
use tidemill_proto::training::v1::TrainingJob;
use tidemill_proto::r#type::v1::State;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{Context, Jobs, Platform, Runner};

mod cluster;

/// Runs the script as the worker of every job, and keeps what it reported.
struct Scripted {
    platform: Platform,
    ranks: usize,
    reports: Arc<Mutex<Vec<Report>>>,
    starts: Arc<Mutex<Vec<u32>>>,
}

#[async_trait]
impl Runner<TrainingJob> for Scripted {
    async fn run(&self, job: TrainingJob, context: &Context<TrainingJob>) -> Result<TrainingJob, Fault> {
        let arguments = WorkerArguments {
            job: job.name.clone(),
            uid: job.uid.clone(),
            artifacts_url: self.platform.artifacts_url().to_owned(),
            work_dir: PathBuf::new(),
            spec: String::new(),
        };
        let launch = Launch { service: "training", arguments, ranks: self.ranks };
        let (reports, starts) = (self.reports.clone(), self.starts.clone());
        run(
            &self.platform,
            context,
            launch,
            |report| reports.lock().unwrap().push(report.clone()),
            |job, _handle, restarts| {
                job.restart_count = restarts as i32;
                starts.lock().unwrap().push(restarts);
            },
        )
        .await?;
        Ok(job)
    }
}

struct Bench {
    platform: Platform,
    jobs: Jobs<TrainingJob>,
    reports: Arc<Mutex<Vec<Report>>>,
    starts: Arc<Mutex<Vec<u32>>>,
    stop: CancellationToken,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn start(script: &str) -> Self {
        Self::start_with(tempfile::tempdir().unwrap(), "", script).await
    }

    /// The script is the program of every worker; a launcher's URL in place of the default.
    async fn start_with(folder: tempfile::TempDir, launcher_url: &str, script: &str) -> Self {
        Self::start_ranks(1, folder, launcher_url, script).await
    }

    /// The same with workers of several ranks.
    async fn start_ranks(ranks: usize, folder: tempfile::TempDir, launcher_url: &str, script: &str) -> Self {
        let program = folder.path().join("worker");
        std::fs::write(&program, format!("#!/bin/sh\ncd {}\n{script}\n", folder.path().display())).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let text = format!(
            "[platform]\ndata_dir = {:?}\nworker_program = {program:?}\nworker_restarts = 2\nlauncher_url = {launcher_url:?}\n[server]\ngrpc_address = \"127.0.0.1:0\"\n",
            folder.path().join("data")
        );
        let settings = Settings::from_layers(&[crate::DEFAULTS], Some(("test".to_owned(), text)), Default::default());
        let settings = settings.unwrap();
        let platform = Platform::connect(&settings).await.unwrap();
        let jobs = Jobs::new(&platform, "training", topics::TRAINING_TASKS, topics::TRAINING_JOB_EVENTS);
        let (reports, starts) = (Arc::default(), Arc::default());
        let runner =
            Scripted { platform: platform.clone(), ranks, reports: Arc::clone(&reports), starts: Arc::clone(&starts) };
        let service = Service::new("test").task(platform.relay()).task(jobs.task(1, runner));
        let stop = CancellationToken::new();
        let bound = server::bind(&settings.section("server").unwrap(), false).await.unwrap();
        tokio::spawn(bound.serve(vec![service], stop.clone()));
        Self { platform, jobs, reports, starts, stop, folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    async fn run(&self) -> TrainingJob {
        let job = self.jobs.create(TrainingJob::default(), "", "", "").await.unwrap();
        let changes = self.jobs.watch(&job.name).await.unwrap();
        let changes: Vec<_> = tokio::time::timeout(Duration::from_secs(60), changes.collect()).await.unwrap();
        changes.into_iter().last().unwrap().unwrap()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

const REPORT: &str = r#"echo 'progress {"phase":"training","done":1,"total":2}'"#;

#[tokio::test(flavor = "multi_thread")]
async fn reports_reach_the_service_also_the_last() {
    let bench = Bench::start(&format!("{REPORT}\necho 'progress {{\"done\":2}}'")).await;
    assert_eq!(bench.run().await.state(), State::Succeeded);
    let done: Vec<i64> = bench.reports.lock().unwrap().iter().map(|report| report.done).collect();
    assert_eq!(done, [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_starts_again() {
    let bench = Bench::start(&format!("{REPORT}\n[ -e once ] || {{ touch once; kill -9 $$; }}\nsleep 0.5")).await;
    assert_eq!(bench.run().await.state(), State::Succeeded);
    assert_eq!(*bench.starts.lock().unwrap().last().unwrap(), 1);
    assert!(bench.path().join("once").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_loses_ranks_and_comes_no_further_fails_its_job() {
    let bench = Bench::start("echo start >> starts\necho a host is on fire\necho ranks 1\nexit 76").await;
    let message = bench.run().await.error.unwrap().message;
    assert!(message.contains("a lost rank") && message.contains("a host is on fire"), "{message}");
    // The settings allow two more.
    assert_eq!(std::fs::read_to_string(bench.path().join("starts")).unwrap().lines().count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_without_coming_further_fails_its_job() {
    let bench = Bench::start("echo the roof is on fire\nkill -9 $$").await;
    let job = bench.run().await;
    assert_eq!(job.state(), State::Failed);
    let message = job.error.unwrap().message;
    assert!(message.contains("signal 9") && message.contains("the roof is on fire"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_says_when_it_gives_up_is_the_jobs_error() {
    let fault = Fault::new(tonic::Code::DataLoss, "ARTIFACT_DAMAGED", "shard 3 is damaged");
    let line = format!(r#"{{"code":{},"reason":"{}","message":"{}"}}"#, fault.code as i32, fault.reason, fault.message);
    let bench = Bench::start(&format!("echo 'fault {line}'\nexit 1")).await;
    let error = bench.run().await.error.unwrap();
    assert_eq!((error.code, error.message.as_str()), (tonic::Code::DataLoss as i32, "shard 3 is damaged"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_ends_its_worker() {
    let bench = Bench::start("echo $$ > pid\ntrap 'exit 75' TERM\nwhile :; do sleep 0.05; done").await;
    let job = bench.jobs.create(TrainingJob::default(), "", "", "").await.unwrap();
    let pid = loop {
        match std::fs::read_to_string(bench.path().join("pid")) {
            Ok(text) if text.ends_with('\n') => break text.trim().to_owned(),
            _ => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    bench.jobs.cancel(&job.name).await.unwrap();
    let proc = Path::new("/proc").join(pid);
    let gone = async {
        while proc.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
}
