//! kill -9 of the daemon and of its workers, at random points of every step of the loop: the digests end as if nothing had happened.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};
use tidemill_proto::evaluation::v1 as evaluation;
use tidemill_proto::pipeline::v1::{self as pipeline, PipelineRun, PipelineSpec};
use tidemill_proto::training::v1 as training;
use tidemill_proto::r#type::v1::State;
use tidemill_sandbox::{Clients, PATIENCE, Spawned, corpus, mini_pipeline, outcome, post_feedback, toml};

/// The issue asks for at least this many.
const KILLS: usize = 30;
/// Kills of one victim in one step of one run.
const KILLS_A_STEP: usize = 3;
/// Loops until every step was met; a step of milliseconds can be missed in one.
const ROUNDS: usize = 12;
/// What must have been killed at least once.
const EVERY_STEP: &[&str] = &[
    "ingest: daemon",
    "preprocess: daemon",
    "train: daemon",
    "train: worker",
    "evaluate: daemon",
    "evaluate: worker",
    "gate: daemon",
    "deploy: daemon",
    "feedback: daemon",
    "ingest-feedback: daemon",
];

/// SplitMix64 (Steele et al., 2014): random points that a seed reproduces.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }
}

/// A daemon that is started again after each kill.
struct Victim<'a> {
    settings: &'a Path,
    data: &'a Path,
    running: Option<Spawned>,
    clients: Clients,
}

impl<'a> Victim<'a> {
    async fn start(settings: &'a Path, data: &'a Path) -> Result<Self> {
        let running = Spawned::start(settings, data).await?;
        let clients = Clients::connect(&running.endpoints)?;
        clients.ready().await?;
        Ok(Self { settings, data, running: Some(running), clients })
    }

    async fn kill_and_restart(&mut self) -> Result<()> {
        self.running.take().context("a victim runs")?.kill()?;
        *self = Self::start(self.settings, self.data).await?;
        Ok(())
    }

    async fn run(&self, name: &str) -> Option<PipelineRun> {
        let request = pipeline::GetPipelineRunRequest { name: name.to_owned() };
        Some(self.clients.pipeline.clone().get_pipeline_run(request).await.ok()?.into_inner())
    }

    /// Process ids of the workers that run now.
    async fn workers(&self) -> Vec<i32> {
        let mut handles = Vec::new();
        let jobs = training::ListTrainingJobsRequest::default();
        if let Ok(list) = self.clients.training.clone().list_training_jobs(jobs).await {
            let jobs = list.into_inner().training_jobs;
            handles.extend(jobs.into_iter().filter(|j| j.state() == State::Running).map(|j| j.worker));
        }
        let evaluations = evaluation::ListEvaluationsRequest::default();
        if let Ok(list) = self.clients.evaluation.clone().list_evaluations(evaluations).await {
            let evaluations = list.into_inner().evaluations;
            handles.extend(evaluations.into_iter().filter(|e| e.state() == State::Running).map(|e| e.worker));
        }
        handles.iter().filter_map(|handle| handle.parse().ok()).collect()
    }
}

async fn begin(clients: &Clients, spec: &PipelineSpec) -> Result<()> {
    let created = pipeline::CreatePipelineRequest {
        pipeline_id: spec.id.clone(),
        pipeline: Some(pipeline::Pipeline { spec: Some(spec.clone()), ..Default::default() }),
        request_id: "00000000-0000-4000-8000-00000000000a".to_owned(),
    };
    clients.pipeline.clone().create_pipeline(created).await?;
    let run = pipeline::CreatePipelineRunRequest {
        parent: format!("pipelines/{}", spec.id),
        pipeline_run: Some(PipelineRun::default()),
        request_id: "00000000-0000-4000-8000-00000000000b".to_owned(),
        ..Default::default()
    };
    clients.pipeline.clone().create_pipeline_run(run).await?;
    Ok(())
}

/// Kills by step and victim: what must be hit at least once, and what was.
struct Tally {
    hits: BTreeMap<String, usize>,
    in_run: BTreeMap<String, usize>,
}

impl Tally {
    fn missing(&self) -> Vec<&'static str> {
        EVERY_STEP.iter().copied().filter(|hit| !self.hits.contains_key(*hit)).collect()
    }

    fn total(&self) -> usize {
        self.hits.values().sum()
    }

    fn may_hit(&self, key: &str) -> bool {
        self.in_run.get(key).copied().unwrap_or_default() < KILLS_A_STEP
    }

    fn hit(&mut self, key: &str) {
        *self.hits.entry(key.to_owned()).or_default() += 1;
        *self.in_run.entry(key.to_owned()).or_default() += 1;
    }
}

/// Kills while a run goes on, until it has ended.
async fn harass(victim: &mut Victim<'_>, name: &str, random: &mut Random, tally: &mut Tally) -> Result<()> {
    let start = std::time::Instant::now();
    tally.in_run.clear();
    loop {
        anyhow::ensure!(start.elapsed() < PATIENCE * 3, "{name} did not end under kills: {:?}", tally.hits);
        let Some(run) = victim.run(name).await else { continue };
        if matches!(run.state(), State::Succeeded | State::Failed | State::Cancelled) {
            anyhow::ensure!(run.state() == State::Succeeded, "{name} failed: {:?}", run.error);
            return Ok(());
        }
        let Some(step) = run.steps.iter().find(|step| step.state() == State::Running) else { continue };
        let (of_daemon, of_worker) = (format!("{}: daemon", step.id), format!("{}: worker", step.id));
        let workers = victim.workers().await;
        let wanted = |key: &String| tally.missing().contains(&key.as_str());
        let choose_worker = !workers.is_empty() && (wanted(&of_worker) || (!wanted(&of_daemon) && random.next(2) == 0));
        if choose_worker && tally.may_hit(&of_worker) {
            tokio::time::sleep(Duration::from_millis(random.next(300))).await;
            if kill_process(Pid::from_raw(workers[0]).context("pid")?, Signal::KILL).is_ok() {
                tally.hit(&of_worker);
            }
        } else if tally.may_hit(&of_daemon) {
            // A step of a few milliseconds is only met at once; a long one at any point.
            let longest = if wanted(&of_daemon) { 5 } else { 250 };
            tokio::time::sleep(Duration::from_millis(random.next(longest))).await;
            victim.kill_and_restart().await?;
            tally.hit(&of_daemon);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_kills_change_no_digest() {
    let folder = tempfile::tempdir().unwrap();
    let spec = mini_pipeline("code", &corpus(folder.path()).unwrap());
    let place = |name: &str| {
        let data = folder.path().join(name);
        let settings = folder.path().join(format!("{name}.toml"));
        std::fs::write(&settings, toml(&data, "").unwrap()).unwrap();
        (settings, data)
    };

    let (settings, data) = place("undisturbed");
    let calm = Victim::start(&settings, &data).await.unwrap();
    begin(&calm.clients, &spec).await.unwrap();
    tidemill_sandbox::wait_for_run(&calm.clients, "pipelines/code/runs/1").await.unwrap();
    post_feedback(&calm.clients, "code", 3).await.unwrap();
    tidemill_sandbox::eventually("a second run", async || calm.run("pipelines/code/runs/2").await).await.unwrap();
    let expected = outcome(&calm.clients, "code", 2).await.unwrap();
    calm.running.unwrap().terminate().await.unwrap();

    let mut random = Random(20_261_123);
    let mut tally = Tally { hits: BTreeMap::new(), in_run: BTreeMap::new() };
    for round in 0..ROUNDS {
        let (settings, data) = place(&format!("killed-{round}"));
        let mut victim = Victim::start(&settings, &data).await.unwrap();
        begin(&victim.clients, &spec).await.unwrap();
        harass(&mut victim, "pipelines/code/runs/1", &mut random, &mut tally).await.unwrap();
        post_feedback(&victim.clients, "code", 3).await.unwrap();
        victim.kill_and_restart().await.unwrap();
        tally.hit("feedback: daemon");
        tidemill_sandbox::eventually("a second run", async || victim.run("pipelines/code/runs/2").await).await.unwrap();
        harass(&mut victim, "pipelines/code/runs/2", &mut random, &mut tally).await.unwrap();
        assert_eq!(outcome(&victim.clients, "code", 2).await.unwrap(), expected, "after {:#?}", tally.hits);
        victim.running.take().unwrap().terminate().await.unwrap();
        println!("after round {}: {} kills {:#?}", round + 1, tally.total(), tally.hits);
        if tally.total() >= KILLS && tally.missing().is_empty() {
            return;
        }
    }
    panic!("{} kills in {ROUNDS} rounds; never met: {:?}", tally.total(), tally.missing());
}
