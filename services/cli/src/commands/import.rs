//! `tidemill import`: registers a model that was trained elsewhere.

use tidemill_proto::registry::v1::{CreateModelRequest, Model};
use tidemill_proto::training::v1::{CreateTrainingJobRequest, TrainingJob};
use tidemill_proto::r#type::v1::ImportSpec;
use tonic::Code;

use super::{Context, request_id, watch};
use crate::arguments::Import;
use crate::failure::Failure;
use crate::output;

/// Makes the model if it is missing, starts the import, and follows it.
pub(super) async fn execute(context: &Context, import: &Import) -> Result<(), Failure> {
    let path = import.path.canonicalize();
    let path = path.map_err(|error| Failure::Failed(format!("{}: {error}", import.path.display())))?;
    let connection = context.connect().await?;
    let request =
        CreateModelRequest { model_id: import.model.clone(), model: Some(Model::default()), request_id: request_id() };
    match connection.registry().create_model(request).await {
        Ok(_) => {}
        Err(status) if status.code() == Code::AlreadyExists => {}
        Err(status) => return Err(status.into()),
    }
    let job = TrainingJob {
        model: format!("models/{}", import.model),
        import: Some(ImportSpec { uri: format!("file://{}", path.display()), sha256: import.sha256.clone() }),
        ..TrainingJob::default()
    };
    let request = CreateTrainingJobRequest {
        training_job: Some(job),
        request_id: request_id(),
        ..CreateTrainingJobRequest::default()
    };
    let created = connection.training().create_training_job(request).await?.into_inner();
    if import.detach {
        if context.output.for_people() {
            output::line(&created.name);
        } else {
            context.output.one(&created);
        }
        return Ok(());
    }
    watch::to_the_end(context, &connection, &created.name).await
}
