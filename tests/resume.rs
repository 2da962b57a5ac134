//! A training job whose worker is killed fifty times and stopped fifty times ends with the bytes of one that was left alone: weights,
//! optimiser state and cursor.

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tidemill_proto::training::v1::{self as training, TrainingJob};
use tidemill_proto::r#type::v1::{Schedule, State, TrainingSpec};
use tidemill_sandbox::{Clients, Sandbox, corpus, eventually, mini_pipeline, run_to_end};

/// Of each signal.
const TIMES: usize = 50;
const STEPS: i64 = 6000;

#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_and_fifty_stops_change_no_byte() {
    if std::env::var("SANDBOX").is_ok_and(|mode| mode != "process") {
        eprintln!("skipped: resume: it signals workers by pid, and starts its own sandbox; run without SANDBOX");
        return;
    }
    let sandbox = Sandbox::start().await.unwrap();
    let clients = sandbox.clients.clone();
    let folder = tempfile::tempdir().unwrap();
    let mut spec = mini_pipeline("resume", &corpus(folder.path()).unwrap());
    spec.feedback = None;
    let run = run_to_end(&clients, spec.clone()).await.unwrap();
    let prepared = run.steps.iter().find(|step| step.id == "preprocess").map(|step| step.digest.clone()).unwrap();
    let spec = TrainingSpec {
        steps: STEPS,
        accumulation: 2,
        // Steps that take long enough: between two reports of a worker, which come every 200 ms, only a few may pass.
        batch_size: 8,
        schedule: Some(Schedule { warmup_steps: 20, ..Schedule::default() }),
        checkpoint_every_steps: 40,
        validate_every_steps: 1000,
        ..spec.training.unwrap_or_default()
    };
    let calm = begin(&clients, "calm", &spec, &prepared).await.unwrap();
    let calm = end(&clients, &calm).await.unwrap();
    let harried = begin(&clients, "harried", &spec, &prepared).await.unwrap();
    let signals = harry(&clients, &harried).await.unwrap();
    let harried = end(&clients, &harried).await.unwrap();
    println!("{:<8} {:>8} {:>8} {:>6} {:>9}", "signal", "at step", "saved", "lost", "restarts");
    for Signalled { signal, reached, saved, restarts } in &signals {
        let name = if *signal == Signal::TERM { "SIGTERM" } else { "kill -9" };
        println!("{name:<8} {reached:>8} {saved:>8} {:>6} {restarts:>9}", (reached - saved).max(0));
    }
    let stopped = signals.iter().filter(|one| one.signal == Signal::TERM);
    let lost: Vec<i64> = stopped.map(|one| (one.reached - one.saved).max(0)).collect();
    let (kills, stops, most_lost) = (signals.len() - lost.len(), lost.len(), lost.iter().copied().max().unwrap_or(0));
    println!(
        "kill -9 {kills}, SIGTERM {stops}, steps lost to a SIGTERM at most {most_lost}, restarts {}",
        harried.restart_count
    );
    println!("model      {} {}", calm.model_digest, harried.model_digest);
    assert_eq!((kills, stops), (TIMES, TIMES), "the job was over before all signals were sent: make it longer");
    assert!(most_lost <= 1, "a SIGTERM lost {most_lost} steps");
    assert_eq!(calm.model_digest, harried.model_digest);
    let (calm, harried) =
        (checkpoints(&clients, &calm.name).await.unwrap(), checkpoints(&clients, &harried.name).await.unwrap());
    let (calm, harried) = (calm.first().unwrap(), harried.first().unwrap());
    println!("checkpoint {} {}", calm.digest, harried.digest);
    assert_eq!((calm.step, &calm.digest), (harried.step, &harried.digest), "weights, optimiser state and cursor");
    sandbox.stop().await.unwrap();
}

struct Signalled {
    signal: Signal,
    /// The step that was told last before it.
    reached: i64,
    /// The step of the newest checkpoint after it.
    saved: i64,
    /// How often workers had died before it.
    restarts: i32,
}

/// Signals the worker at random steps.
async fn harry(clients: &Clients, name: &str) -> Result<Vec<Signalled>> {
    let mut signals = Vec::new();
    let (mut signalled, mut random) = (String::new(), 1u64);
    while signals.len() < 2 * TIMES {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // A worker that dies again and again without coming further is given up; so each comes further, by a random number of steps.
        // What is known when it begins was told by the one before.
        let begun = eventually("the start of a worker", async || {
            let job = get(clients, name).await.ok()?;
            (ended(&job) || !job.worker.is_empty() && job.worker != signalled).then_some(job)
        });
        let until = done(&begun.await?) + 2 + (random >> 33) as i64 % 25;
        let met = eventually("a worker that comes further", async || {
            let job = get(clients, name).await.ok()?;
            (ended(&job) || done(&job) >= until).then_some(job)
        });
        let job = met.await?;
        if ended(&job) {
            break;
        }
        let Some(pid) = job.worker.parse().ok().and_then(Pid::from_raw) else { continue };
        let signal = if signals.len() % 2 == 0 { Signal::KILL } else { Signal::TERM };
        // It may just have ended.
        if kill_process(pid, signal).is_err() {
            continue;
        }
        let gone = || kill_process(pid, Signal::CONT).is_err();
        eventually("the end of the worker", async || gone().then_some(())).await?;
        let saved = checkpoints(clients, name).await?.first().map_or(0, |checkpoint| checkpoint.step);
        signals.push(Signalled { signal, reached: done(&job), saved, restarts: job.restart_count });
        signalled = job.worker;
    }
    Ok(signals)
}

fn done(job: &TrainingJob) -> i64 {
    job.progress.as_ref().map_or(0, |progress| progress.done_count)
}

fn ended(job: &TrainingJob) -> bool {
    matches!(job.state(), State::Succeeded | State::Failed | State::Cancelled)
}

async fn begin(clients: &Clients, id: &str, spec: &TrainingSpec, prepared: &str) -> Result<String> {
    let job = TrainingJob {
        spec: Some(spec.clone()),
        dataset_digest: prepared.to_owned(),
        model: "models/resume".to_owned(),
        ..TrainingJob::default()
    };
    let request = training::CreateTrainingJobRequest {
        training_job_id: id.to_owned(),
        training_job: Some(job),
        ..Default::default()
    };
    Ok(clients.training.clone().create_training_job(request).await?.into_inner().name)
}

async fn end(clients: &Clients, name: &str) -> Result<TrainingJob> {
    let request = training::WatchTrainingJobRequest { name: name.to_owned() };
    let mut stream = clients.training.clone().watch_training_job(request).await?.into_inner();
    let mut last = None;
    while let Some(job) = stream.message().await? {
        last = Some(job);
    }
    let job = last.context("a job")?;
    ensure!(job.state() == State::Succeeded, "{:?}", job.error);
    Ok(job)
}

async fn get(clients: &Clients, name: &str) -> Result<TrainingJob> {
    let request = training::GetTrainingJobRequest { name: name.to_owned() };
    Ok(clients.training.clone().get_training_job(request).await?.into_inner())
}

async fn checkpoints(clients: &Clients, name: &str) -> Result<Vec<training::Checkpoint>> {
    let request = training::ListCheckpointsRequest { parent: name.to_owned(), ..Default::default() };
    Ok(clients.training.clone().list_checkpoints(request).await?.into_inner().checkpoints)
}
