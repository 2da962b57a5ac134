//! `tidemill run`: a pipeline file into a run, followed to the gate's word.

use tidemill_proto::pipeline::v1::{
    CreatePipelineRequest, CreatePipelineRunRequest, GetPipelineRequest, Pipeline, PipelineRun, UpdatePipelineRequest,
};
use tonic::{Code, Status};

use super::{Context, request_id, watch};
use crate::arguments::Run;
use crate::connection::Connection;
use crate::document;
use crate::failure::Failure;
use crate::output;

/// Checks, stores, starts and follows.
pub(super) async fn execute(context: &Context, run: &Run) -> Result<(), Failure> {
    let file = run.file.display().to_string();
    let text = std::fs::read_to_string(&run.file).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Failure::NotFound(format!("{file} does not exist; pipelines/demo.yaml is an example to start from"))
        }
        _ => Failure::Usage(format!("{file} cannot be read: {error}")),
    })?;
    let (spec, places) = document::pipeline(&text).map_err(|mistakes| Failure::document(&file, &mistakes))?;
    if run.check {
        if context.output.for_people() {
            context.output.note(&format!("{file} is well"))
        } else {
            context.output.one(&spec)
        }
        return Ok(());
    }

    let connection = context.connect().await?;
    let pipeline = Pipeline { spec: Some(spec), ..Default::default() };
    let pipeline = store(&connection, pipeline).await.map_err(|status| Failure::of_document(status, &file, &places))?;
    let request = CreatePipelineRunRequest {
        parent: pipeline.name.clone(),
        pipeline_run_id: String::new(),
        pipeline_run: Some(PipelineRun::default()),
        request_id: request_id(),
    };
    let created = connection.pipeline().create_pipeline_run(request).await;
    let created = created.map_err(|status| Failure::of_document(status, &file, &places))?.into_inner();
    if run.detach {
        if context.output.for_people() {
            output::line(&created.name)
        } else {
            context.output.one(&created)
        }
        return Ok(());
    }
    context.output.note(&format!("{} has begun; Ctrl-C leaves it running", created.name));
    watch::to_the_end(context, &connection, &created.name).await
}

/// Creates the pipeline, or gives the one that exists this document.
async fn store(connection: &Connection, mut pipeline: Pipeline) -> Result<Pipeline, Status> {
    let id = pipeline.spec.as_ref().map(|spec| spec.id.clone()).unwrap_or_default();
    let request =
        CreatePipelineRequest { pipeline_id: id.clone(), pipeline: Some(pipeline.clone()), request_id: request_id() };
    match connection.pipeline().create_pipeline(request).await {
        Err(status) if status.code() == Code::AlreadyExists => {}
        result => return result.map(tonic::Response::into_inner),
    }
    pipeline.name = format!("pipelines/{id}");
    let present =
        connection.pipeline().get_pipeline(GetPipelineRequest { name: pipeline.name.clone() }).await?.into_inner();
    if present.spec == pipeline.spec {
        return Ok(present);
    }
    let request = UpdatePipelineRequest { pipeline: Some(pipeline) };
    connection.pipeline().update_pipeline(request).await.map(tonic::Response::into_inner)
}
