//! One turn: its steps, its verdicts, its failures, and what a crash leaves behind.

use tidemill_proto::pipeline::v1::pipeline_run::{Trigger, Verdict};

use super::*;

fn ids(run: &PipelineRun) -> Vec<&str> {
    run.steps.iter().map(|step| step.id.as_str()).collect()
}

fn step<'a>(run: &'a PipelineRun, id: &str) -> &'a pipeline_run::Step {
    run.steps.iter().find(|step| step.id == id).unwrap_or_else(|| panic!("no step {id} in {:?}", run.steps))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_goes_through_all_steps_and_promotes_its_model() {
    let (data, world) = (tempfile::tempdir().unwrap(), World::new());
    let mut running = Running::start(&data, &world).await;
    running.pipeline(sample::pipeline("demo")).await;
    let run = running.turn("demo").await;
    assert_eq!(
        (run.state(), run.trigger(), run.verdict()),
        (State::Succeeded, Trigger::Request, Verdict::Promoted),
        "{run:?}"
    );
    assert_eq!(ids(&run), ["ingest", "preprocess", "train", "evaluate", "gate", "deploy"]);
    for step in &run.steps {
        assert_eq!(step.state(), State::Succeeded, "{step:?}");
        assert!(step.digest.starts_with("sha256:") && step.start_time.is_some() && step.end_time.is_some(), "{step:?}");
    }
    assert_eq!(run.findings.len(), 2);

    {
        let state = world.state();
        let job = &state.training_jobs["trainingJobs/demo-1"];
        assert_eq!(job.dataset_digest, state.preprocessing_jobs["preprocessingJobs/demo-1"].digest);
        assert_eq!(job.labels["pipeline-run"], run.name);
        assert_eq!((&run.model_version, &run.model_digest), (&job.model_version, &job.model_digest));
        assert_eq!(state.alias.as_ref().unwrap().digest, run.model_digest);
        assert_eq!(step(&run, "train").resource, "trainingJobs/demo-1");
        // There was no champion to measure.
        assert_eq!(state.evaluations.keys().collect::<Vec<_>>(), ["evaluations/demo-1"]);
    }
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_turn_measures_the_champion_on_the_same_data() {
    let (data, world) = (tempfile::tempdir().unwrap(), World::new());
    let mut running = Running::start(&data, &world).await;
    running.pipeline(sample::pipeline("demo")).await;
    let first = running.turn("demo").await;
    let mut spec = sample::pipeline("demo");
    spec.recipe.as_mut().unwrap().steps.pop();
    let request = UpdatePipelineRequest {
        pipeline: Some(Pipeline { name: "pipelines/demo".to_owned(), spec: Some(spec), ..Default::default() }),
    };
    running.client.update_pipeline(request).await.unwrap();
    let second = running.turn("demo").await;
    assert_eq!(second.verdict(), Verdict::Promoted);
    {
        let state = world.state();
        let of_champion = &state.evaluations["evaluations/demo-2-champion-1"];
        assert_eq!(of_champion.model_digest, first.model_digest);
        assert_eq!(of_champion.dataset_digest, state.evaluations["evaluations/demo-2"].dataset_digest);
    }

    // The very same turn again: everything is known, so nothing new is measured of the champion.
    running.turn("demo").await;
    assert!(!world.state().created.iter().any(|name| name.starts_with("evaluations/demo-3-champion")));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_is_a_verdict_and_the_run_succeeds() {
    let (data, world) = (tempfile::tempdir().unwrap(), World::new());
    world.state().refusing = true;
    let mut running = Running::start(&data, &world).await;
    running.pipeline(sample::pipeline("demo")).await;
    let run = running.turn("demo").await;
    assert_eq!((run.state(), run.verdict()), (State::Succeeded, Verdict::Refused));
    assert_eq!(run.findings, ["a holds", "b was looked at too"]);
    assert_eq!(ids(&run), ["ingest", "preprocess", "train", "evaluate", "gate"]);
    assert!(world.state().deployment.is_none());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_job_fails_the_run_once_and_names_the_step() {
    let (data, world) = (tempfile::tempdir().unwrap(), World::new());
    world.state().failing = Some("trainingJobs/");
    let mut running = Running::start(&data, &world).await;
    running.pipeline(sample::pipeline("demo")).await;
    let run = running.turn("demo").await;
    assert_eq!(run.state(), State::Failed);
    let error = run.error.as_ref().unwrap();
    assert_eq!(error.message, "step train: trainingJobs/demo-1 failed: the disk is full");
    assert_eq!(step(&run, "train").state(), State::Failed);
    assert_eq!(ids(&run), ["ingest", "preprocess", "train"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_see_the_step_with_the_figures_of_its_job() {
    let (data, world) = (tempfile::tempdir().unwrap(), World::new());
    world.state().held = Some("trainingJobs/");
    let mut running = Running::start(&data, &world).await;
    running.pipeline(sample::pipeline("demo")).await;
    let name = running.begin("demo", "").await.name;
    // Jobs before it work too, and may be seen at it.
    let progress = eventually("the loss is seen", async || {
        running.get(&name).await.and_then(|run| run.progress).filter(|progress| progress.phase == "train: working")
    })
    .await;
    assert_eq!(progress.metrics["loss"], 2.5);
    world.release();
    assert_eq!(running.ended(&name).await.state(), State::Succeeded);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_breaks_off_is_taken_up_again() {
    let (data, world) = (tempfile::tempdir().unwrap(), World::new());
    world.state().breaking = 4;
    let mut running = Running::start(&data, &world).await;
    running.pipeline(sample::pipeline("demo")).await;
    assert_eq!(running.turn("demo").await.state(), State::Succeeded);
    assert_eq!(world.state().breaking, 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_a_run_cancels_the_job_it_waits_for() {
    let (data, world) = (tempfile::tempdir().unwrap(), World::new());
    world.state().held = Some("trainingJobs/");
    let mut running = Running::start(&data, &world).await;
    running.pipeline(sample::pipeline("demo")).await;
    let name = running.begin("demo", "").await.name;
    eventually("training begins", async || {
        world.state().training_jobs.contains_key("trainingJobs/demo-1").then_some(())
    })
    .await;
    let request = CancelPipelineRunRequest { name: name.clone() };
    assert_eq!(running.client.cancel_pipeline_run(request).await.unwrap().into_inner().state(), State::Cancelled);
    eventually("the training is cancelled", async || {
        (world.state().training_jobs["trainingJobs/demo-1"].state() == State::Cancelled).then_some(())
    })
    .await;
    let closed = eventually("its step is closed", async || {
        running.get(&name).await.filter(|run| step(run, "train").state() == State::Cancelled)
    })
    .await;
    assert_eq!(closed.state(), State::Cancelled);
    assert!(step(&closed, "train").end_time.is_some());
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_cancelled_while_nobody_drove_it_still_cancels_its_job() {
    let (data, world) = (tempfile::tempdir().unwrap(), World::new());
    world.state().held = Some("trainingJobs/");
    let mut running = Running::start(&data, &world).await;
    running.pipeline(sample::pipeline("demo")).await;
    let name = running.begin("demo", "").await.name;
    eventually("training begins", async || {
        world.state().training_jobs.contains_key("trainingJobs/demo-1").then_some(())
    })
    .await;
    // The process dies right after the cancellation was stored, and before anybody acted on it.
    let platform = running.platform.clone();
    running.stop().await;
    let jobs = tidemill_platform::Jobs::<PipelineRun>::new(
        &platform,
        "pipeline",
        tidemill_proto::topics::PIPELINE_TASKS,
        tidemill_proto::topics::PIPELINE_RUN_EVENTS,
    );
    jobs.cancel(&name).await.unwrap();
    drop((jobs, platform));
    assert_eq!(world.state().training_jobs["trainingJobs/demo-1"].state(), State::Running);
    let running = Running::start(&data, &world).await;
    eventually("the training is cancelled", async || {
        (world.state().training_jobs["trainingJobs/demo-1"].state() == State::Cancelled).then_some(())
    })
    .await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_started_over_creates_nothing_twice() {
    for held in ["datasets/", "preprocessingJobs/", "trainingJobs/", "evaluations/"] {
        let (data, world) = (tempfile::tempdir().unwrap(), World::new());
        world.state().held = Some(held);
        let mut running = Running::start(&data, &world).await;
        running.pipeline(sample::pipeline("demo")).await;
        let name = running.begin("demo", "").await.name;
        let waiting = format!("{held}demo");
        eventually("the job is there", async || {
            let is_job =
                |name: &&String| name.starts_with(&waiting) && (held != "datasets/" || name.contains("/versions/"));
            world.state().created.iter().find(is_job).map(drop)
        })
        .await;
        running.stop().await;

        world.release();
        let running = Running::start(&data, &world).await;
        let run = running.ended(&name).await;
        assert_eq!((run.state(), run.verdict()), (State::Succeeded, Verdict::Promoted), "{run:?}");
        assert_eq!(ids(&run), ["ingest", "preprocess", "train", "evaluate", "gate", "deploy"]);
        {
            let state = world.state();
            let mut once = state.created.clone();
            once.sort();
            once.dedup();
            assert_eq!(once.len(), state.created.len(), "{:?}", state.created);
            assert_eq!(state.promotions.len(), 1);
        }
        running.stop().await;
    }
}
