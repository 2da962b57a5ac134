//! Studies over real jobs: their result, what stops them, and what a stop of the service does not change.

use tidemill_proto::training::v1::study::Algorithm;

use super::*;
use crate::study::tests::{choices, range};

/// A small search of the learning rate.
fn study(sandbox: &Sandbox) -> Study {
    Study {
        training_job: Some(sandbox.job(spec())),
        parameters: vec![range("spec.optimizer.learning_rate", 1e-4, 1e-1, true), choices("spec.z_loss", &[0.0, 1e-3])],
        max_trials: 4,
        seed: 7,
        algorithm: Some(Algorithm::TreeParzenEstimator(TreeParzenEstimator { startup_trials: 2 })),
        ..Study::default()
    }
}

impl Sandbox {
    async fn create_study(&self, id: &str, study: Study) -> Result<Study, Fault> {
        let request =
            CreateStudyRequest { study_id: id.to_owned(), study: Some(study), request_id: format!("request-{id}") };
        Ok(self.studies.clone().create_study(request).await?.into_inner())
    }

    /// Follows a study until it has ended, or looks as it should.
    async fn follow_study(&self, name: &str, mut until: impl FnMut(&Study) -> bool) -> Study {
        let request = WatchStudyRequest { name: name.to_owned() };
        let mut states = self.studies.clone().watch_study(request).await.unwrap().into_inner();
        let mut last = Study::default();
        let all = async {
            while let Some(study) = states.next().await {
                last = study.unwrap();
                if until(&last) {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(180), all).await.expect("the study goes on");
        last
    }

    async fn job_of(&self, trial: &Trial) -> TrainingJob {
        let request = GetTrainingJobRequest { name: trial.training_job.clone() };
        self.client.clone().get_training_job(request).await.unwrap().into_inner()
    }
}

#[tokio::test]
async fn a_study_names_its_best_trial_and_a_stop_of_the_service_on_its_way_gives_the_same_trials() {
    let sandbox = Sandbox::new().await;
    let asked = study(&sandbox);
    let created = sandbox.create_study("rate", asked.clone()).await.unwrap();
    assert_eq!((created.name.as_str(), created.state()), ("studies/rate", State::Pending));
    assert_eq!(sandbox.create_study("rate", asked.clone()).await.unwrap().uid, created.uid, "a retry creates nothing");
    let done = sandbox.follow_study("studies/rate", |_| false).await;
    assert_eq!(done.state(), State::Succeeded, "{:?}", done.error);
    assert_eq!(done.trials.len(), 4);
    let objectives: Vec<f64> = done.trials.iter().map(|trial| trial.objective.unwrap()).collect();
    let best = &done.trials[done.best_trial.unwrap() as usize];
    assert!(objectives.iter().all(|objective| best.objective.unwrap() <= *objective), "{objectives:?}");
    for trial in &done.trials {
        let job = sandbox.job_of(trial).await;
        let last = job.history.last().unwrap();
        assert_eq!((last.step, trial.step, job.labels["study"].as_str()), (spec().steps, spec().steps, "rate"));
        assert_eq!(last.metrics["validation_loss"] as f32, trial.objective.unwrap() as f32);
        let rate = trial.parameters["spec.optimizer.learning_rate"].clone();
        assert_eq!(prost_types::Value::from(job.spec.unwrap().optimizer.unwrap().learning_rate), rate);
    }
    let winner = sandbox.job_of(best).await;
    assert_eq!((&done.model_version, &done.model_digest), (&winner.model_version, &winner.model_digest));
    let versions: Vec<CreateModelVersionRequest> = sandbox.registry.calls("CreateModelVersion");
    let of_trials = versions.iter().filter_map(|version| version.model_version.as_ref()?.labels.get("trial").cloned());
    assert_eq!(of_trials.collect::<Vec<_>>(), ["0", "1", "2", "3"]);
    let plot = sandbox.platform.artifacts.get(&done.plot_digest.parse().unwrap()).await.unwrap();
    let request = PlotStudyRequest { name: done.name.clone() };
    let drawn = sandbox.studies.clone().plot_study(request).await.unwrap().into_inner().svg;
    assert!(plot == drawn.as_bytes() && drawn.matches("<circle").count() == 4, "{drawn}");

    let other = Sandbox::new().await;
    assert_eq!(other.dataset, sandbox.dataset);
    other.create_study("rate", asked).await.unwrap();
    let under_way = |study: &Study| study.trials.get(1).is_some_and(|trial| trial.state() == State::Running);
    let left = other.follow_study("studies/rate", under_way).await;
    assert_eq!(left.state(), State::Running);
    let other = Sandbox::open(other.end().await).await;
    let resumed = other.follow_study("studies/rate", |_| false).await;
    assert_eq!(resumed.state(), State::Succeeded, "{:?}", resumed.error);
    assert_eq!(resumed.trials, done.trials);
    assert_eq!((resumed.best_trial, &resumed.model_digest), (done.best_trial, &done.model_digest));
    assert_eq!(resumed.plot_digest, done.plot_digest);
    let jobs = other.client.clone().list_training_jobs(ListTrainingJobsRequest::default()).await.unwrap().into_inner();
    assert_eq!(jobs.training_jobs.len(), 4, "no trial twice");
    sandbox.end().await;
    other.end().await;
}

#[tokio::test]
async fn a_loser_is_stopped_at_its_rung_long_before_its_end() {
    let sandbox = Sandbox::new().await;
    // The first trial is short and learns; the second would go on for long and does not learn. The seed is one that draws this.
    let spec = TrainingSpec { steps: 200, validate_every_steps: 100, checkpoint_every_steps: 10_000, ..spec() };
    let asked = |seed| Study {
        training_job: Some(sandbox.job(spec.clone())),
        parameters: vec![
            choices("spec.optimizer.learning_rate", &[1e-2, 1e-9]),
            choices("spec.steps", &[200.0, 20_000.0]),
        ],
        max_trials: 2,
        seed,
        algorithm: Some(Algorithm::RandomSearch(RandomSearch {})),
        successive_halving: Some(SuccessiveHalving { reduction_factor: 2, min_steps: 100 }),
        ..Study::default()
    };
    let drawn = |seed: &u64| crate::study::tests::first_two(&asked(*seed)) == [[1e-2, 200.0], [1e-9, 20_000.0]];
    let seed = (0..1000).find(drawn).expect("one in sixteen does");
    sandbox.create_study("halved", asked(seed)).await.unwrap();
    let done = sandbox.follow_study("studies/halved", |_| false).await;
    assert_eq!((done.state(), done.best_trial), (State::Succeeded, Some(0)), "{:?}", done.error);
    let [winner, loser] = &done.trials[..] else { panic!("{:?}", done.trials) };
    assert_eq!((winner.state(), winner.step, winner.rungs.len()), (State::Succeeded, 200, 1));
    assert_eq!((loser.state(), loser.stopped_early, loser.step), (State::Cancelled, true, 100));
    assert!(loser.rungs[0].objective > winner.rungs[0].objective && loser.model_version.is_empty());
    let job = sandbox.job_of(loser).await;
    assert_eq!(job.state(), State::Cancelled);
    assert!((100..20_000).contains(&job.step), "{}", job.step);
    sandbox.end().await;
}

#[tokio::test]
async fn a_cancelled_study_stops_its_trials() {
    let sandbox = Sandbox::new().await;
    let long = sandbox.job(TrainingSpec { steps: 100_000, ..spec() });
    let asked = Study { training_job: Some(long), parallel_trials: 2, ..study(&sandbox) };
    sandbox.create_study("endless", asked).await.unwrap();
    let begun = |study: &Study| study.trials.iter().any(|trial| trial.state() == State::Running);
    sandbox.follow_study("studies/endless", begun).await;
    let request = CancelStudyRequest { name: "studies/endless".to_owned() };
    let cancelled = sandbox.studies.clone().cancel_study(request).await.unwrap().into_inner();
    assert_eq!((cancelled.state(), cancelled.trials.len()), (State::Cancelled, 2));
    for trial in &cancelled.trials {
        assert_eq!(trial.state(), State::Cancelled);
        assert_eq!(sandbox.job_of(trial).await.state(), State::Cancelled);
    }
    sandbox.end().await;
}

#[tokio::test]
async fn a_study_of_which_no_trial_can_run_says_why() {
    let sandbox = Sandbox::new().await;
    // Each value is all right by itself; together they are not.
    let parameters = vec![choices("spec.schedule.warmup_steps", &[25.0]), choices("spec.steps", &[20.0])];
    let asked = Study { parameters, max_trials: 2, ..study(&sandbox) };
    sandbox.create_study("vain", asked).await.unwrap();
    let failed = sandbox.follow_study("studies/vain", |_| false).await;
    assert_eq!(failed.state(), State::Failed);
    let error = failed.error.unwrap().message;
    assert!(error.contains("trial 0: spec.schedule.warmup_steps: 25 is more than the 20 steps"), "{error}");
    assert!(failed.trials.iter().all(|trial| trial.state() == State::Failed));
    sandbox.end().await;
}

#[tokio::test]
async fn every_mistake_in_a_study_is_told_at_once() {
    let sandbox = Sandbox::new().await;
    let wrong = Study {
        training_job: Some(TrainingJob {
            spec: Some(TrainingSpec { steps: 0, ..spec() }),
            model: "models/absent".to_owned(),
            ..sandbox.job(spec())
        }),
        parameters: vec![
            range("spec.optimizer.learning_rate", 0.0, 1.0, true),
            range("spec.optimiser", 0.0, 1.0, false),
            choices("spec.batch_size", &[0.0, 4.0]),
        ],
        objective: "accuracy".to_owned(),
        direction: 9,
        max_trials: 0,
        parallel_trials: -1,
        algorithm: None,
        successive_halving: Some(SuccessiveHalving { reduction_factor: 1, min_steps: 0 }),
        ..Study::default()
    };
    let fault = sandbox.create_study("Not-An-Id", wrong).await.unwrap_err();
    let fields: Vec<&str> = fault.fields.iter().map(|(field, _)| field.as_str()).collect();
    let expected = [
        "study_id",
        "training_job.spec.steps",
        "training_job.spec.schedule.warmup_steps",
        "training_job.model",
        "parameters[0].range.low",
        "parameters[1].field",
        "parameters[2]",
        "objective",
        "direction",
        "max_trials",
        "parallel_trials",
        "algorithm",
        "successive_halving.reduction_factor",
        "successive_halving.min_steps",
    ];
    assert_eq!(fields, expected, "{fault}");
    assert_eq!(fault.code, Code::InvalidArgument);

    let rare =
        Study { successive_halving: Some(SuccessiveHalving { reduction_factor: 0, min_steps: 5 }), ..study(&sandbox) };
    let fault = sandbox.create_study("", rare).await.unwrap_err();
    assert!(fault.message.contains("5 is less than the 7 steps between measurements"), "{fault}");
    let fault = sandbox.create_study("", Study::default()).await.unwrap_err();
    let fields: Vec<&str> = fault.fields.iter().map(|(field, _)| field.as_str()).collect();
    assert_eq!(fields, ["training_job", "parameters", "max_trials", "algorithm"]);
    sandbox.end().await;
}
