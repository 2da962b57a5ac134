//! `tidemill status`: what the server is doing, on one screen.

use serde_json::json;
use tidemill_proto::inference::v1::ListDeploymentsRequest;
use tidemill_proto::inference::v1::deployment::Status;
use tidemill_proto::pipeline::v1::ListPipelinesRequest;

use super::Context;
use super::lists::job_row;
use crate::failure::Failure;
use crate::output::{self, json};
use crate::{jobs, words};

const SERVICES: [&str; 7] = [
    "tidemill.ingestion.v1.IngestionService",
    "tidemill.preprocessing.v1.PreprocessingService",
    "tidemill.training.v1.TrainingService",
    "tidemill.evaluation.v1.EvaluationService",
    "tidemill.registry.v1.RegistryService",
    "tidemill.inference.v1.InferenceService",
    "tidemill.pipeline.v1.PipelineService",
];

/// Health, deployments, pipelines, latest work.
pub(super) async fn execute(context: &Context) -> Result<(), Failure> {
    let connection = context.connect().await?;
    let whole = connection.health("").await?;
    let mut health = Vec::new();
    for service in SERVICES {
        let name = service.split('.').nth(1).unwrap_or(service);
        // A server that does not have the service says NOT_FOUND.
        health.push((name, connection.health(service).await.unwrap_or("ABSENT")));
    }
    let deployments =
        connection.inference().list_deployments(ListDeploymentsRequest::default()).await?.into_inner().deployments;
    let pipelines = connection.pipeline().list_pipelines(ListPipelinesRequest::default()).await?.into_inner().pipelines;
    let work = jobs::list(&connection, &["run", "training", "evaluation"], 5).await?;

    if !context.output.for_people() {
        context.output.value(&json!({
            "server": context.global.server,
            "health": whole,
            "services": health.iter().map(|(name, state)| ((*name).to_owned(), json!(state))).collect::<serde_json::Map<_, _>>(),
            "deployments": deployments.iter().map(json).collect::<Vec<_>>(),
            "pipelines": pipelines.iter().map(json).collect::<Vec<_>>(),
            "jobs": work.iter().map(jobs::AnyJob::json).collect::<Vec<_>>(),
        }));
        return Ok(());
    }

    output::line(&format!("{} at {}", whole.to_lowercase(), context.global.server));
    let unwell: Vec<String> =
        health.iter().filter(|(_, state)| *state != "SERVING").map(|(name, state)| format!("{name} {state}")).collect();
    if !unwell.is_empty() {
        output::line(&format!("not serving: {}", unwell.join(", ")));
    }
    if !deployments.is_empty() {
        let rows = deployments.iter().map(|deployment| {
            let status = match deployment.status() {
                Status::Ready => "ready",
                Status::Waiting => "waiting",
                Status::Degraded => "degraded",
                Status::Unspecified => "-",
            };
            let served =
                if deployment.model_version.is_empty() { "-".to_owned() } else { deployment.model_version.clone() };
            vec![
                deployment.name.clone(),
                status.to_owned(),
                deployment.alias.clone(),
                served,
                words::digest(&deployment.model_digest),
                deployment.detail.clone(),
            ]
        });
        let headers = ["DEPLOYMENT", "STATUS", "ALIAS", "SERVES", "DIGEST", "DETAIL"];
        output::line(&format!("\n{}", output::table(&headers, rows.collect())));
    }
    if !pipelines.is_empty() {
        let rows = pipelines.iter().map(|pipeline| {
            let threshold =
                pipeline.spec.as_ref().and_then(|spec| spec.feedback.as_ref()).map(|feedback| feedback.threshold);
            let feedback = threshold.map_or_else(
                || "-".to_owned(),
                |threshold| format!("{} of {threshold}", pipeline.pending_feedback_count),
            );
            vec![pipeline.name.clone(), pipeline.run_count.to_string(), feedback]
        });
        output::line(&format!("\n{}", output::table(&["PIPELINE", "RUNS", "FEEDBACK"], rows.collect())));
    }
    if !work.is_empty() {
        let rows = work.iter().take(8).map(job_row).collect();
        output::line(&format!("\n{}", output::table(&["JOB", "KIND", "STATE", "TOOK", "CREATED", "RESULT"], rows)));
    }
    Ok(())
}
