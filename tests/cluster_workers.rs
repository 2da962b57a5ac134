//! The loop with its workers as Jobs of a real cluster: they share nothing with the services but the artifact store.

use std::time::Duration;

use tidemill_proto::evaluation::v1::GetEvaluationRequest;
use tidemill_proto::training::v1 as training;
use tidemill_proto::r#type::v1::{State, TrainingSpec};
use tidemill_sandbox::{Sandbox, corpus, mini_pipeline, run_to_end};

/// The launcher's URL; `KUBECONFIG` has the credentials of training's own service account.
const LAUNCHER: &str = "TIDEMILL_TEST_LAUNCHER";
/// Artifacts that workers in a cluster reach.
const ARTIFACTS: &str = "TIDEMILL_TEST_S3";

#[tokio::test(flavor = "multi_thread")]
async fn workers_of_the_loop_are_jobs_of_a_cluster_and_a_cancelled_one_leaves() {
    let (Ok(launcher), Ok(artifacts)) = (std::env::var(LAUNCHER), std::env::var(ARTIFACTS)) else {
        println!("skipped: the loop in a cluster: {LAUNCHER} or {ARTIFACTS} is not set; run tests/cluster/run");
        return;
    };
    let settings = format!("launcher_url = {launcher:?}\nartifacts_url = {artifacts:?}\n");
    let sandbox = Sandbox::start_with(&settings).await.unwrap();
    let texts = tempfile::tempdir().unwrap();
    let mut pipeline = mini_pipeline("code", &corpus(texts.path()).unwrap());
    // What matters here is where the work happens, not how much is learnt.
    pipeline.training.as_mut().unwrap().steps = 12;
    let run = run_to_end(&sandbox.clients, pipeline).await.unwrap();

    let made = |collection: &str| {
        let step = run.steps.iter().find(|step| step.resource.starts_with(collection));
        step.unwrap_or_else(|| panic!("{collection} in {:?}", run.steps)).resource.clone()
    };
    let request = training::GetTrainingJobRequest { name: made("trainingJobs/") };
    let trained = sandbox.clients.training.clone().get_training_job(request).await.unwrap().into_inner();
    // A pod's name, made from the worker's id.
    assert!(trained.worker.starts_with("training-"), "{}", trained.worker);
    let request = GetEvaluationRequest { name: made("evaluations/") };
    let evaluated = sandbox.clients.evaluation.clone().get_evaluation(request).await.unwrap().into_inner();
    assert!(evaluated.worker.starts_with("evaluation-"), "{}", evaluated.worker);

    let client = sandbox.clients.training.clone();
    let create = async |id: &str, change: fn(TrainingSpec) -> TrainingSpec| {
        let job = training::TrainingJob {
            spec: trained.spec.clone().map(change),
            dataset_digest: trained.dataset_digest.clone(),
            model: trained.model.clone(),
            ..Default::default()
        };
        let training_job_id = id.to_owned();
        let request =
            training::CreateTrainingJobRequest { training_job_id, training_job: Some(job), ..Default::default() };
        client.clone().create_training_job(request).await.unwrap().into_inner().name
    };
    let get = async |name: &str| {
        let request = training::GetTrainingJobRequest { name: name.to_owned() };
        client.clone().get_training_job(request).await.unwrap().into_inner()
    };

    // The same global batch on two ranks, each a pod.
    let ranks = create("ranks", |spec| TrainingSpec { ranks: 2, accumulation: spec.accumulation / 2, ..spec }).await;
    let ended = async || Some(get(&ranks).await).filter(|job| !matches!(job.state(), State::Pending | State::Running));
    let shared = tidemill_sandbox::eventually("the end of the job with two ranks", ended).await.unwrap();
    assert_eq!(shared.state(), State::Succeeded, "{:?}", shared.error);
    let curve = |job: &training::TrainingJob| job.history.iter().map(|point| point.metrics["loss"]).collect::<Vec<_>>();
    let (alone, shared) = (curve(&trained), curve(&shared));
    assert_eq!(alone.len(), shared.len());
    assert!(alone.iter().zip(&shared).all(|(one, two)| (one - two).abs() < 1e-3 * one), "{alone:?} {shared:?}");

    let job = create("long", |spec| TrainingSpec { steps: 1_000_000, checkpoint_every_steps: 1_000, ..spec }).await;
    tidemill_sandbox::eventually("its first steps", async || (get(&job).await.step > 0).then_some(())).await.unwrap();
    let request = training::CancelTrainingJobRequest { name: job.clone() };
    client.clone().cancel_training_job(request).await.unwrap();
    assert_eq!(get(&job).await.state(), State::Cancelled);
    // What its worker still does is for `kubectl` to see: it saves its checkpoint, and its Job ends.
    tokio::time::timeout(Duration::from_secs(60), sandbox.stop()).await.unwrap().unwrap();
}
