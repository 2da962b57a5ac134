//! `tidemill logs`: what workers wrote.

use futures::StreamExt as _;
use tidemill_proto::evaluation::v1::ReadEvaluationLogRequest;
use tidemill_proto::pipeline::v1::GetPipelineRunRequest;
use tidemill_proto::training::v1::ReadTrainingJobLogRequest;
use tonic::Status;

use super::Context;
use crate::arguments::Logs;
use crate::connection::Connection;
use crate::failure::Failure;
use crate::{jobs, output};

/// Prints a job's log, or those of a run's jobs.
pub(super) async fn execute(context: &Context, logs: &Logs) -> Result<(), Failure> {
    let connection = context.connect().await?;
    let name = jobs::resolve(&connection, &logs.name).await?;
    if !name.starts_with("pipelines/") {
        return Ok(print(&connection, &name, logs.follow).await?);
    }
    let run = connection.pipeline().get_pipeline_run(GetPipelineRunRequest { name }).await?.into_inner();
    let with_log = run.steps.iter().filter(|step| has_log(&step.resource));
    for step in with_log {
        context.output.note(&format!("--- {}: {}", step.id, step.resource));
        print(&connection, &step.resource, logs.follow).await?;
    }
    Ok(())
}

fn has_log(name: &str) -> bool {
    name.starts_with("trainingJobs/") || name.starts_with("evaluations/")
}

async fn print(connection: &Connection, name: &str, follow: bool) -> Result<(), Status> {
    let owned = name.to_owned();
    let mut lines = match name.split('/').next().unwrap_or_default() {
        "trainingJobs" => {
            let request = ReadTrainingJobLogRequest { name: owned, follow };
            connection
                .training()
                .read_training_job_log(request)
                .await?
                .into_inner()
                .map(|part| part.map(|part| part.text))
                .boxed()
        }
        "evaluations" => {
            let request = ReadEvaluationLogRequest { name: owned, follow };
            connection
                .evaluation()
                .read_evaluation_log(request)
                .await?
                .into_inner()
                .map(|part| part.map(|part| part.text))
                .boxed()
        }
        _ => {
            return Err(Status::invalid_argument(format!(
                "{name} has no worker; training jobs, evaluations and pipeline runs have logs"
            )));
        }
    };
    while let Some(text) = lines.next().await {
        output::raw(&text?);
    }
    Ok(())
}
