//! The loop with its workers as Jobs of a real cluster: they share nothing with the services but the artifact store.

use std::time::Duration;

use tidemill_proto::evaluation::v1::GetEvaluationRequest;
use tidemill_proto::training::v1 as training;
use tidemill_proto::r#type::v1::State;
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

    let long = training::TrainingJob {
        spec: trained.spec.map(|spec| tidemill_proto::r#type::v1::TrainingSpec {
            steps: 1_000_000,
            checkpoint_every_steps: 1_000,
            ..spec
        }),
        dataset_digest: trained.dataset_digest,
        model: trained.model,
        ..Default::default()
    };
    let request = training::CreateTrainingJobRequest {
        training_job_id: "long".to_owned(),
        training_job: Some(long),
        ..Default::default()
    };
    let job = sandbox.clients.training.clone().create_training_job(request).await.unwrap().into_inner();
    let get = async || {
        let request = training::GetTrainingJobRequest { name: job.name.clone() };
        sandbox.clients.training.clone().get_training_job(request).await.unwrap().into_inner()
    };
    tidemill_sandbox::eventually("its first steps", async || (get().await.step > 0).then_some(())).await.unwrap();
    let request = training::CancelTrainingJobRequest { name: job.name.clone() };
    sandbox.clients.training.clone().cancel_training_job(request).await.unwrap();
    assert_eq!(get().await.state(), State::Cancelled);
    // What its worker still does is for `kubectl` to see: it saves its checkpoint, and its Job ends.
    tokio::time::timeout(Duration::from_secs(60), sandbox.stop()).await.unwrap().unwrap();
}
