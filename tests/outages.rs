//! Kafka is away at the start; servers are slow or go away under load, and replicas fall silent. Nothing acknowledged is lost, nothing is
//! wrong or happens twice, alerts fire, and within 15 s of a fault's end all goes on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tidemill_faults::Fault;
use tidemill_proto::ingestion::v1 as ingestion;
use tidemill_proto::pipeline::v1::{self as pipeline, PipelineRun};
use tidemill_proto::r#type::v1::State;
use tidemill_sandbox::{
    Alerts, Clients, Distributed, Load, OwnServers, SERVICES, begin_run, complete, corpus, eventually, mini_pipeline,
    outcome, wait_for_run,
};

/// What everything may take to go on after a fault.
const HEALING: Duration = Duration::from_secs(15);
/// The model that is asked meanwhile.
const SERVED: &str = "served";

/// Two replicas of every service over servers that can be lost, with traffic, and a Prometheus that watches.
struct Scene {
    tidemill: Distributed,
    clients: Clients,
    servers: OwnServers,
    alerts: Alerts,
    load: Load,
    corpus: PathBuf,
    /// What the pipeline comes to where nothing happens.
    calm: BTreeMap<String, String>,
}

/// A fault, and what it must do.
struct Outage {
    name: &'static str,
    lasts: Duration,
    /// Alerts that must fire while it lasts, or soon after.
    alerts: &'static [&'static str],
    /// Whether requests may fail meanwhile.
    requests_may_fail: bool,
}

#[tokio::test(flavor = "multi_thread")]
async fn outages_lose_nothing_and_heal() {
    if std::env::var("TIDEMILL_TEST_KAFKA").is_err() {
        eprintln!("skipped: outages: TIDEMILL_TEST_KAFKA is not set; run make deps-up");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::open(folder.path()).await.unwrap();
    let servers = scene.servers.clone();
    println!(
        "{:<30} {:>5} {:>9} {:>7} {:>8} {:>7} {:>6} {:>7}  alerts",
        "fault", "s", "completed", "failed", "feedback", "failed", "wrong", "healed"
    );

    let kafka = Outage {
        name: "kafka killed",
        lasts: Duration::from_secs(60),
        alerts: &["TidemillOutboxFailing", "TidemillDependencyFails eventlog"],
        requests_may_fail: false,
    };
    let (down, up) = (servers.kafka.clone(), servers.kafka.clone());
    scene.through(kafka, || down.kill(), move || up.start_again()).await.unwrap();

    let slow = Outage {
        name: "slow kafka (0.5 s a packet)",
        lasts: Duration::from_secs(30),
        alerts: &[],
        requests_may_fail: false,
    };
    let (down, up) = (servers.to_kafka.clone(), servers.to_kafka.clone());
    scene.through(slow, || down.set(Fault::Delay(Duration::from_millis(500))), move || up.heal()).await.unwrap();

    let redis = Outage {
        name: "redis stopped (SIGSTOP)",
        lasts: Duration::from_secs(20),
        alerts: &["TidemillCacheFails"],
        requests_may_fail: false,
    };
    let (down, up) = (servers.redis.clone(), servers.redis.clone());
    scene.through(redis, || down.pause(), move || up.resume()).await.unwrap();

    let postgres = Outage {
        name: "postgres quit",
        lasts: Duration::from_secs(20),
        alerts: &["TidemillDependencyFails resources"],
        requests_may_fail: true,
    };
    let (down, up) = (servers.postgres.clone(), servers.postgres.clone());
    scene.through(postgres, || down.quit(), move || up.start_again()).await.unwrap();

    let s3 = Outage {
        name: "s3 killed",
        lasts: Duration::from_secs(35),
        alerts: &["TidemillDependencyFails artifacts"],
        requests_may_fail: false,
    };
    let (down, up) = (servers.s3.clone(), servers.s3.clone());
    scene.through(s3, || down.kill(), move || up.start_again()).await.unwrap();

    let silent = Outage {
        name: "one replica of each (SIGSTOP)",
        lasts: Duration::from_secs(65),
        alerts: &["TidemillTargetDown"],
        requests_may_fail: true,
    };
    let consumers = SERVICES.iter().filter(|service| **service != "gateway");
    let (down, up) = (consumers.clone(), consumers);
    scene
        .through(
            silent,
            || down.for_each(|service| scene.tidemill.pause(service, 0).unwrap()),
            || up.for_each(|service| scene.tidemill.resume(service, 0).unwrap()),
        )
        .await
        .unwrap();

    scene.close().await.unwrap();
}

impl Scene {
    async fn open(folder: &std::path::Path) -> Result<Self> {
        let servers = OwnServers::start().await?;
        // Kafka comes last, after a run was asked for.
        servers.kafka.kill();
        let tidemill = Distributed::start(&servers.addresses()?, &folder.join("data"), 2, None, "").await?;
        let clients = Clients::connect(&tidemill.endpoints)?;
        let alerts = Alerts::watch(tidemill.admins()).await?;
        let corpus = corpus(folder)?;
        let mut spec = mini_pipeline(SERVED, &corpus);
        spec.feedback = None;
        let run = begin_run(&clients, spec).await?;
        let kafka = servers.kafka.clone();
        tokio::task::spawn_blocking(move || kafka.start_again()).await?;
        wait_for_run(&clients, &run).await?;
        eventually("an answer", async || complete(&clients, SERVED, 0).await.ok()).await?;
        let calm = digests(&clients, SERVED).await?;
        let load = Load::start(&clients, SERVED).await?;
        Ok(Self { tidemill, clients, servers, alerts, load, corpus, calm })
    }

    /// Starts a run, lets the fault begin in it and end, and checks what the module promises.
    async fn through(&self, outage: Outage, begin: impl FnOnce(), end: impl FnOnce()) -> Result<()> {
        let name = outage.name;
        let before = self.alerts.firing().await?;
        ensure!(!outage.alerts.iter().any(|alert| before.contains(*alert)), "{before:?} fires before {name}");
        self.load.completions.take();
        self.load.feedback.take();
        let id = name.split(' ').next().context("a name")?;
        let mut spec = mini_pipeline(id, &self.corpus);
        spec.feedback = None;
        let run = begin_run(&self.clients, spec).await?;
        eventually("the first step", async || {
            let run = self.run(&run).await?;
            run.steps.iter().any(|step| step.state() == State::Running).then_some(())
        })
        .await?;

        tokio::task::block_in_place(begin);
        let began = Instant::now();
        let mut fired = BTreeSet::new();
        while began.elapsed() < outage.lasts {
            tokio::time::sleep(Duration::from_secs(1)).await;
            fired.extend(self.alerts.firing().await?);
        }
        tokio::task::block_in_place(end);
        let ended = Instant::now();
        let then = self.run(&run).await;
        let going_on =
            eventually("going on", async || self.goes_on(&run, then.as_ref()).await.then(|| ended.elapsed()));
        let Ok(healed) = going_on.await else {
            bail!("after {name} this did not go on: {:?}, then {then:?}", self.run(&run).await);
        };
        fired.extend(self.alerts.firing().await?);

        let (completed, failed, longest, said) = self.load.completions.take();
        let (judged, unjudged, _, also_said) = self.load.feedback.take();
        let wrong = self.load.wrong.load(std::sync::atomic::Ordering::Relaxed);
        println!(
            "{name:<30} {:>5} {completed:>9} {failed:>7} {judged:>8} {unjudged:>7} {wrong:>6} {:>6.1}s  {}",
            outage.lasts.as_secs(),
            healed.as_secs_f64(),
            fired.difference(&before).cloned().collect::<Vec<_>>().join(", ")
        );
        println!("  longest completion {longest:?}; failures: {said:?} {also_said:?}");
        ensure!(wrong == 0, "{wrong} completions were wrong during {name}");
        ensure!(healed < HEALING, "after {name} it took {healed:?} until all went on");
        ensure!(
            outage.requests_may_fail || failed + unjudged == 0,
            "requests failed during {name}: {said:?} {also_said:?}"
        );
        let silent: Vec<_> = outage.alerts.iter().filter(|alert| !fired.contains(**alert)).collect();
        ensure!(silent.is_empty(), "{silent:?} did not fire during {name}, but {fired:?}");
        ensure!(digests(&self.clients, id).await? == self.calm, "{name} changed what the pipeline comes to");
        Ok(())
    }

    async fn run(&self, name: &str) -> Option<PipelineRun> {
        let request = pipeline::GetPipelineRunRequest { name: name.to_owned() };
        let mut client = self.clients.pipeline.clone();
        let answer = tokio::time::timeout(Duration::from_secs(5), client.get_pipeline_run(request)).await.ok()?;
        Some(answer.ok()?.into_inner())
    }

    /// Whether completions and feedback are answered, no event waits, and the run is further than it was.
    async fn goes_on(&self, run: &str, then: Option<&PipelineRun>) -> bool {
        let states = |run: &PipelineRun| run.steps.iter().map(|step| step.state()).collect::<Vec<_>>();
        let Some(now) = self.run(run).await else { return false };
        let moved = now.state() == State::Succeeded || then.is_none_or(|then| states(then) != states(&now));
        let waiting = self.alerts.query("sum(tidemill_outbox_pending)").await.ok().flatten();
        moved && waiting == Some(0.0) && complete(&self.clients, SERVED, 0).await.is_ok()
    }

    /// All feedback that was acknowledged is there, and each once.
    async fn close(self) -> Result<()> {
        let acknowledged = self.load.stop().await?;
        let mut stored = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ingestion::ListFeedbacksRequest { page_size: 1000, page_token, ..Default::default() };
            let page = self.clients.ingestion.clone().list_feedbacks(request).await?.into_inner();
            stored.extend(page.feedback.into_iter().map(|feedback| feedback.name));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        let distinct: BTreeSet<String> = stored.iter().cloned().collect();
        ensure!(distinct.len() == stored.len(), "feedback was stored twice");
        let lost: Vec<_> = acknowledged.difference(&distinct).collect();
        ensure!(lost.is_empty(), "{} of {} were acknowledged and lost: {lost:?}", lost.len(), acknowledged.len());
        println!("feedback: {} acknowledged, {} stored, 0 lost, 0 doubled", acknowledged.len(), stored.len());
        self.tidemill.terminate().await
    }
}

/// What a pipeline came to, less what bears its name.
async fn digests(clients: &Clients, id: &str) -> Result<BTreeMap<String, String>> {
    outcome(clients, id, 1).await
}
