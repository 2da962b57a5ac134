//! From a prepared dataset to a candidate with figures.

use tidemill_chassis::Fault;
use tidemill_proto::evaluation::v1::{CreateEvaluationRequest, Evaluation};
use tidemill_proto::names;
use tidemill_proto::registry::v1::{CreateModelRequest, Model};
use tidemill_proto::training::v1::{CreateTrainingJobRequest, TrainingJob};
use tidemill_proto::r#type::v1::TrainingSpec;
use tidemill_proto::r#type::v1::threshold::Bound;

use tidemill_proto::pipeline::v1::pipeline_run::Trigger;

use super::{Turn, Version, ensured, keys};

/// Share of the learning rate, and of the steps for warm-up, where a turn goes on from a model.
const GENTLER: f64 = 3.0;
const WARMUP_SHARE: i64 = 10;

impl Turn {
    /// Trains on the prepared dataset, from the base's weights where there is one; gives the version that was registered.
    pub(super) async fn train(&self, prepared: &str, base: Option<&Version>) -> Result<Version, Fault> {
        let name = format!("trainingJobs/{}", self.id());
        let work = async {
            let model = self.serving().model.clone();
            self.model(&model).await?;
            let job = TrainingJob {
                labels: self.labels(),
                spec: Some(self.training_spec()),
                dataset_digest: prepared.to_owned(),
                mixed_datasets: self.spec.mixed_datasets.clone(),
                base_model_digest: base.map(|base| base.digest.clone()).unwrap_or_default(),
                model: format!("models/{model}"),
                ..TrainingJob::default()
            };
            let request = CreateTrainingJobRequest {
                training_job_id: self.id(),
                training_job: Some(job),
                request_id: self.request_id("train"),
            };
            let created = self.clients.training().create_training_job(request).await?.into_inner();
            let done = self.follow::<TrainingJob>("train", &created.name).await?;
            if done.model_version.is_empty() {
                return Err(Fault::internal(format!("{} succeeded without a model version", done.name)));
            }
            Ok(Version { name: done.model_version, digest: done.model_digest, tokenizer_digest: String::new() })
        };
        let candidate = self.step("train", name, work, |version| version.digest.clone()).await?;
        self.context
            .update(|run| {
                run.model_version.clone_from(&candidate.name);
                run.model_digest.clone_from(&candidate.digest);
            })
            .await?;
        Ok(candidate)
    }

    /// Makes a model exist.
    pub(super) async fn model(&self, id: &str) -> Result<(), Fault> {
        let request = CreateModelRequest {
            model_id: id.to_owned(),
            model: Some(Model { labels: self.labels(), ..Model::default() }),
            request_id: keys::stable(&format!("models/{id}")),
        };
        ensured(self.clients.registry().create_model(request).await)
    }

    fn training_spec(&self) -> TrainingSpec {
        let mut spec = self.spec.training.clone().unwrap_or_default();
        let goes_on = self.run.trigger() == Trigger::Feedback;
        let Some(feedback) = self.spec.feedback.filter(|_| goes_on) else { return spec };
        spec.steps = feedback.steps;
        if let Some(optimizer) = &mut spec.optimizer {
            optimizer.learning_rate = match feedback.learning_rate {
                0.0 => optimizer.learning_rate / GENTLER,
                rate => rate,
            };
        }
        if let Some(schedule) = &mut spec.schedule {
            schedule.warmup_steps = schedule.warmup_steps.min(feedback.steps / WARMUP_SHARE);
        }
        // Intervals meant for a longer training would never come.
        for interval in [&mut spec.checkpoint_every_steps, &mut spec.validate_every_steps] {
            if *interval > feedback.steps {
                *interval = 0;
            }
        }
        spec
    }

    /// Measures the candidate; and the champion on the same data, where the objective compares with it.
    pub(super) async fn evaluate(&self, prepared: &str, candidate: &Version) -> Result<(), Fault> {
        let name = format!("evaluations/{}", self.id());
        let work = async {
            let evaluation = self.measure(&self.id(), &candidate.name, &candidate.digest, prepared).await?;
            self.measure_champion(candidate, &evaluation).await?;
            Ok(evaluation.digest)
        };
        self.step("evaluate", name, work, String::clone).await.map(drop)
    }

    async fn measure(&self, id: &str, version: &str, digest: &str, prepared: &str) -> Result<Evaluation, Fault> {
        let evaluation = Evaluation {
            labels: self.labels(),
            model_version: version.to_owned(),
            model_digest: digest.to_owned(),
            dataset_digest: prepared.to_owned(),
            suite: self.spec.evaluation.clone(),
            ..Evaluation::default()
        };
        let request = CreateEvaluationRequest {
            evaluation_id: id.to_owned(),
            evaluation: Some(evaluation),
            request_id: self.request_id(&format!("evaluate/{id}")),
        };
        let created = self.clients.evaluation().create_evaluation(request).await?.into_inner();
        self.follow::<Evaluation>("evaluate", &created.name).await
    }

    /// The gate compares figures of the same data only, and the data of a later turn is another: so the champion is measured again.
    async fn measure_champion(&self, candidate: &Version, evaluation: &Evaluation) -> Result<(), Fault> {
        let thresholds = self.spec.objective.iter().flat_map(|objective| &objective.thresholds);
        let mut bounds = thresholds.filter_map(|threshold| threshold.bound.as_ref());
        if !bounds.any(|bound| matches!(bound, Bound::MaxChampionRatio(_))) {
            return Ok(());
        }
        let Some(champion) = self.champion().await?.filter(|champion| champion.digest != candidate.digest) else {
            return Ok(());
        };
        let known = self.version(&champion.model_version).await?.evaluations.iter().any(|result| {
            result.model_digest == champion.digest
                && result.dataset_digest == evaluation.dataset_digest
                && result.suite_digest == evaluation.suite_digest
        });
        if known {
            return Ok(());
        }
        let id = format!("{}-champion-{}", self.id(), names::last_id(&champion.model_version));
        let measured = self.measure(&id, &champion.model_version, &champion.digest, &evaluation.dataset_digest).await;
        match measured {
            Ok(_) => Ok(()),
            Err(fault) if fault.is_transient() || self.context.cancelled().is_cancelled() => Err(fault),
            // The gate will refuse and say what is missing; the candidate's figures are worth keeping.
            Err(fault) => {
                tracing::warn!(run = self.run.name, champion = champion.model_version, error = %fault, "champion not measured");
                Ok(())
            }
        }
    }
}
