//! A model that was trained elsewhere becomes the version that training starts from.

use tidemill_chassis::Fault;
use tidemill_proto::training::v1::{CreateTrainingJobRequest, TrainingJob};
use tidemill_proto::r#type::v1::ImportSpec;

use super::{Turn, keys};

impl Turn {
    /// Imports once for all runs of the pipeline, as long as the document names the same model; gives the version.
    pub(super) async fn import(&self, import: &ImportSpec) -> Result<String, Fault> {
        let id = keys::of_content(&format!("{}-base", self.pipeline()), import);
        let work = async {
            let model = format!("{}-base", self.pipeline());
            self.model(&model).await?;
            let job = TrainingJob {
                labels: self.labels(),
                import: Some(import.clone()),
                model: format!("models/{model}"),
                ..TrainingJob::default()
            };
            let request = CreateTrainingJobRequest {
                training_job_id: id.clone(),
                training_job: Some(job),
                request_id: keys::stable(&format!("trainingJobs/{id}")),
            };
            let created = self.clients.training().create_training_job(request).await?.into_inner();
            let done = self.follow::<TrainingJob>("import", &created.name).await?;
            Ok((done.model_version, done.model_digest))
        };
        let imported = self.step("import", format!("trainingJobs/{id}"), work, |(_, digest)| digest.clone()).await?;
        Ok(imported.0)
    }
}
