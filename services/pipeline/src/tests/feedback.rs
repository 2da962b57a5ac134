//! Feedback: counted once, never lost, and enough of it begins the next turn.

use prost::{Message, Name};
use tidemill_eventlog::Event;
use tidemill_proto::event::v1::FeedbackCreated;
use tidemill_proto::ingestion::v1::dataset_version::Origin;
use tidemill_proto::pipeline::v1::pipeline_run::Trigger;
use tidemill_proto::topics;
use tidemill_proto::r#type::v1::tokenizer_spec::Tokenizer;

use super::world::digest;
use super::*;

impl Running {
    /// Publishes feedback on the model `demo`, each time as a new event.
    async fn judge(&self, id: &str, usable: bool) {
        self.judge_model("models/demo", id, usable).await;
    }

    async fn judge_model(&self, model: &str, id: &str, usable: bool) {
        let feedback = format!("feedback/{id}");
        let payload = FeedbackCreated { feedback: feedback.clone(), model: model.to_owned(), usable };
        let event = Event {
            id: uuid::Uuid::new_v4().to_string(),
            topic: topics::FEEDBACK_EVENTS.to_owned(),
            key: feedback,
            event_type: FeedbackCreated::full_name(),
            time_micros: 0,
            headers: Vec::new(),
            payload: payload.encode_to_vec().into(),
        };
        self.platform.log.append(vec![event]).await.unwrap();
    }

    async fn pending(&self, count: i64) {
        eventually("feedback is counted", async || {
            (self.read("demo").await.pending_feedback_count == count).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn enough_feedback_begins_a_turn_from_the_champion_with_exactly_that_feedback() {
    let (data, world) = (tempfile::tempdir().unwrap(), World::new());
    let mut running = Running::start(&data, &world).await;
    running.pipeline(sample::pipeline("demo")).await;
    let first = running.turn("demo").await;
    // Neither unusable feedback, nor that of other models, nor a redelivery counts.
    running.judge("useless", false).await;
    running.judge_model("models/other", "elsewhere", true).await;
    for id in ["c", "a", "c", "a", "b"] {
        running.judge(id, true).await;
    }
    let second = running.ended_when_begun("pipelines/demo/runs/2").await;
    assert_eq!((second.state(), second.trigger()), (State::Succeeded, Trigger::Feedback), "{second:?}");
    assert_eq!(second.feedback, ["feedback/a", "feedback/b", "feedback/c"]);
    assert_eq!(second.labels["base-model-version"], first.model_version);
    assert_eq!(
        second.steps.iter().map(|step| step.id.as_str()).collect::<Vec<_>>()[..3],
        ["ingest", "ingest-feedback", "preprocess"]
    );

    {
        let state = world.state();
        let version = &state.dataset_versions["datasets/demo-feedback/versions/demo-2"];
        assert!(
            matches!(&version.origin, Some(Origin::Feedback(chosen)) if chosen.feedback == second.feedback),
            "{version:?}"
        );
        let prepared = &state.preprocessing_jobs["preprocessingJobs/demo-2"];
        let source = &state.dataset_versions["datasets/demo/versions/demo-2"];
        let inputs: Vec<_> = prepared.inputs.iter().map(|input| (input.digest.as_str(), input.repeat)).collect();
        assert_eq!(inputs, [(source.digest.as_str(), 1), (version.digest.as_str(), 2)]);
        assert_eq!(source.digest, state.dataset_versions["datasets/demo/versions/demo-1"].digest);
        let tokenizer = prepared.recipe.as_ref().unwrap().tokenizer.as_ref().unwrap().tokenizer.as_ref().unwrap();
        assert_eq!(*tokenizer, Tokenizer::Digest(digest("tokenizer")));
        let training = &state.training_jobs["trainingJobs/demo-2"];
        assert_eq!(training.base_model_digest, first.model_digest);
        let spec = training.spec.as_ref().unwrap();
        assert_eq!((spec.steps, spec.checkpoint_every_steps), (20, 0));
        assert_eq!((spec.optimizer.unwrap().learning_rate, spec.schedule.unwrap().warmup_steps), (1e-3, 2));
    }
    assert_eq!(running.read("demo").await.pending_feedback_count, 0);

    // What was learned from is not learned from again.
    for id in ["a", "b", "c", "d"] {
        running.judge(id, true).await;
    }
    running.pending(1).await;
    assert_eq!(running.read("demo").await.run_count, 2);
    running.stop().await;
}

impl Running {
    async fn ended_when_begun(&self, run: &str) -> PipelineRun {
        eventually("the run begins", async || self.get(run).await).await;
        self.ended(run).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_waits_for_a_first_champion() {
    let (data, world) = (tempfile::tempdir().unwrap(), World::new());
    world.state().refusing = true;
    let mut running = Running::start(&data, &world).await;
    running.pipeline(sample::pipeline("demo")).await;
    running.turn("demo").await;
    for id in ["a", "b", "c", "d"] {
        running.judge(id, true).await;
    }
    running.pending(4).await;
    assert_eq!(running.read("demo").await.run_count, 1);
    // The turn that makes the champion also lets the next begin.
    world.state().refusing = false;
    running.turn("demo").await;
    let third = running.ended_when_begun("pipelines/demo/runs/3").await;
    assert_eq!((third.trigger(), third.feedback.len()), (Trigger::Feedback, 4));
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_that_comes_during_a_turn_begins_the_next_when_it_ends() {
    let (data, world) = (tempfile::tempdir().unwrap(), World::new());
    let mut running = Running::start(&data, &world).await;
    running.pipeline(sample::pipeline("demo")).await;
    running.turn("demo").await;
    world.state().held = Some("trainingJobs/");
    for id in ["a", "b", "c"] {
        running.judge(id, true).await;
    }
    eventually("the second turn trains", async || world.state().training_jobs.get("trainingJobs/demo-2").map(drop))
        .await;
    for id in ["d", "e", "f"] {
        running.judge(id, true).await;
    }
    running.pending(3).await;
    assert_eq!(running.read("demo").await.run_count, 2);
    world.release();
    let second = running.ended("pipelines/demo/runs/2").await;
    let third = running.ended_when_begun("pipelines/demo/runs/3").await;
    assert_eq!(third.feedback, ["feedback/d", "feedback/e", "feedback/f"]);
    assert_eq!(third.labels["base-model-version"], second.model_version, "it starts from what the second turn made");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn feedback_counted_before_a_crash_is_neither_lost_nor_counted_again() {
    let (data, world) = (tempfile::tempdir().unwrap(), World::new());
    let mut running = Running::start(&data, &world).await;
    running.pipeline(sample::pipeline("demo")).await;
    running.turn("demo").await;
    for id in ["a", "b"] {
        running.judge(id, true).await;
    }
    running.pending(2).await;
    running.stop().await;
    let running = Running::start(&data, &world).await;
    for id in ["a", "b", "c"] {
        running.judge(id, true).await;
    }
    let second = running.ended_when_begun("pipelines/demo/runs/2").await;
    assert_eq!(second.feedback, ["feedback/a", "feedback/b", "feedback/c"]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_without_a_feedback_loop_counts_nothing() {
    let (data, world) = (tempfile::tempdir().unwrap(), World::new());
    let mut running = Running::start(&data, &world).await;
    let mut spec = sample::pipeline("quiet");
    spec.serving.as_mut().unwrap().model = "demo".to_owned();
    spec.feedback = None;
    running.pipeline(spec).await;
    running.pipeline(sample::pipeline("demo")).await;
    running.judge("a", true).await;
    running.pending(1).await;
    assert_eq!(running.read("quiet").await.pending_feedback_count, 0);
    running.stop().await;
}
