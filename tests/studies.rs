//! A study whose daemon and workers are killed again and again ends with the trials of one that was left alone.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tidemill_proto::training::v1::parameter::{Domain, Range};
use tidemill_proto::training::v1::study::Algorithm;
use tidemill_proto::training::v1::{self as training, Parameter, Study, TrainingJob, Trial};
use tidemill_proto::r#type::v1::{State, TrainingSpec};
use tidemill_sandbox::{Clients, PATIENCE, Spawned, corpus, eventually, mini_pipeline, run_to_end, toml};

const TRIALS: i32 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_study_under_kills_ends_with_the_trials_of_one_that_was_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (data, settings) = (folder.path().join("data"), folder.path().join("tidemill.toml"));
    std::fs::write(&settings, toml(&data, "").unwrap()).unwrap();
    let (daemon, clients) = start(&settings, &data).await.unwrap();
    let mut spec = mini_pipeline("study", &corpus(folder.path()).unwrap());
    spec.feedback = None;
    let run = run_to_end(&clients, spec.clone()).await.unwrap();
    let prepared = run.steps.iter().find(|step| step.id == "preprocess").map(|step| step.digest.clone()).unwrap();
    let asked = study(spec.training.unwrap_or_default(), &prepared);

    begin(&clients, "calm", &asked).await.unwrap();
    let calm =
        eventually("the end of the calm study", async || ended(get(&clients, "calm").await.ok()?)).await.unwrap();
    assert_eq!(calm.state(), State::Succeeded, "{:?}", calm.error);
    assert!(calm.trials.iter().any(|trial| trial.stopped_early), "no trial was stopped early: {:?}", calm.trials);
    begin(&clients, "harried", &asked).await.unwrap();
    let (daemon, clients, kills) = harry(daemon, clients, &settings, &data).await.unwrap();
    let harried = get(&clients, "harried").await.unwrap();
    println!("{kills} kills of the daemon, {} trials, the best is {:?}", harried.trials.len(), harried.best_trial);
    assert_eq!(harried.state(), State::Succeeded, "{:?}", harried.error);
    assert!(kills >= TRIALS as usize, "{kills} kills");
    assert_eq!(shown(&harried), shown(&calm));
    assert_eq!((harried.best_trial, &harried.model_digest), (calm.best_trial, &calm.model_digest));
    let jobs = clients.training.clone().list_training_jobs(training::ListTrainingJobsRequest::default()).await.unwrap();
    let jobs = jobs.into_inner().training_jobs;
    let of_study = jobs.iter().filter(|job| job.labels.get("study").is_some_and(|study| study == "harried"));
    assert_eq!(of_study.count(), TRIALS as usize, "no trial twice");
    daemon.terminate().await.unwrap();
}

fn study(spec: TrainingSpec, prepared: &str) -> Study {
    let range = |field: &str, low, high| Parameter {
        field: field.to_owned(),
        domain: Some(Domain::Range(Range { low, high, log: true, integer: false })),
    };
    Study {
        training_job: Some(TrainingJob {
            spec: Some(TrainingSpec { steps: 600, validate_every_steps: 50, ..spec }),
            dataset_digest: prepared.to_owned(),
            model: "models/study".to_owned(),
            ..TrainingJob::default()
        }),
        parameters: vec![range("spec.optimizer.learning_rate", 1e-5, 1e-1), range("spec.batch_size", 1.0, 4.0)],
        max_trials: TRIALS,
        parallel_trials: 2,
        seed: 3,
        algorithm: Some(Algorithm::TreeParzenEstimator(training::TreeParzenEstimator { startup_trials: 3 })),
        successive_halving: Some(training::SuccessiveHalving { reduction_factor: 2, min_steps: 50 }),
        ..Study::default()
    }
}

/// Kills the daemon whenever it comes to something new, and the workers that run then, until the study has ended.
async fn harry(
    mut daemon: Spawned,
    mut clients: Clients,
    settings: &Path,
    data: &Path,
) -> Result<(Spawned, Clients, usize)> {
    let begun = std::time::Instant::now();
    let mut met = BTreeSet::new();
    loop {
        ensure!(begun.elapsed() < 8 * PATIENCE, "the study did not end under {} kills", met.len());
        let Ok(study) = get(&clients, "harried").await else { continue };
        if ended(study.clone()).is_some() {
            return Ok((daemon, clients, met.len()));
        }
        // A trial that began, that runs, or that passed a rung.
        let now = study.trials.iter().map(|trial| (trial.state() as usize, trial.rungs.len())).collect::<Vec<_>>();
        if !met.insert(now) {
            continue;
        }
        let workers = workers(&clients, &study.trials).await;
        daemon.kill()?;
        if met.len() % 2 == 0 {
            // One may have ended just now.
            let _gone = workers.into_iter().map(|pid| kill_process(pid, Signal::KILL)).collect::<Vec<_>>();
        }
        (daemon, clients) = start(settings, data).await?;
    }
}

async fn start(settings: &Path, data: &Path) -> Result<(Spawned, Clients)> {
    let daemon = Spawned::start(settings, data).await?;
    let clients = Clients::connect(&daemon.endpoints)?;
    clients.ready().await?;
    Ok((daemon, clients))
}

async fn workers(clients: &Clients, trials: &[Trial]) -> Vec<Pid> {
    let mut pids = Vec::new();
    for trial in trials.iter().filter(|trial| trial.state() == State::Running) {
        let request = training::GetTrainingJobRequest { name: trial.training_job.clone() };
        let job = clients.training.clone().get_training_job(request).await;
        let running = job.ok().map(tonic::Response::into_inner).filter(|job| job.state() == State::Running);
        pids.extend(running.and_then(|job| Pid::from_raw(job.worker.parse().ok()?)));
    }
    pids
}

async fn begin(clients: &Clients, id: &str, study: &Study) -> Result<()> {
    let request = training::CreateStudyRequest {
        study_id: id.to_owned(),
        study: Some(study.clone()),
        ..training::CreateStudyRequest::default()
    };
    clients.studies.clone().create_study(request).await.context("a study is created")?;
    Ok(())
}

async fn get(clients: &Clients, id: &str) -> Result<Study> {
    let request = training::GetStudyRequest { name: format!("studies/{id}") };
    Ok(clients.studies.clone().get_study(request).await?.into_inner())
}

fn ended(study: Study) -> Option<Study> {
    matches!(study.state(), State::Succeeded | State::Failed | State::Cancelled).then_some(study)
}

/// The trials without what bears the study's name.
fn shown(study: &Study) -> Vec<Trial> {
    let bare = |trial: &Trial| Trial { training_job: String::new(), model_version: String::new(), ..trial.clone() };
    study.trials.iter().map(bare).collect()
}
