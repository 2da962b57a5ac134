//! The pipeline service: moves a Pipeline through the other services, turn by turn, and lets feedback start the next one. Holds no data.

mod ended;
mod feedback;
mod grpc;
mod runs;
mod spec;
#[cfg(test)]
mod tests;
mod turn;

use std::sync::Arc;

use tidemill_chassis::{Service, Settings};
use tidemill_platform::{Jobs, Platform, consumer};
use tidemill_proto::pipeline::v1::PipelineRun;
use tidemill_proto::pipeline::v1::pipeline_service_server::PipelineServiceServer;
use tidemill_proto::topics;

/// Runs driven at the same time by one process. A run mostly waits for the jobs of others.
const RUNS_AT_ONCE: usize = 4;

/// Builds the service. It has no settings of its own.
///
/// # Errors
/// None at present; the shape is that of every service.
pub fn build(_settings: &Settings, platform: &Platform) -> anyhow::Result<Service> {
    let jobs = Jobs::<PipelineRun>::new(platform, "pipeline", topics::PIPELINE_TASKS, topics::PIPELINE_RUN_EVENTS);
    let runs = runs::Runs::new(platform);
    let feedback = feedback::Feedback::new(platform, runs.clone());
    let counter = Arc::new(feedback::Counter(feedback.clone()));
    let ended = Arc::new(ended::Ended::new(platform, feedback.clone()));
    let (log, group) = (platform.log.clone(), "pipeline".to_owned());
    Ok(Service::new("pipeline")
        .grpc(PipelineServiceServer::new(grpc::Handlers::new(platform, jobs.clone(), runs, feedback)))
        .task(jobs.task(RUNS_AT_ONCE, turn::TurnRunner::new(platform)))
        .task(consumer::task("pipeline feedback", log.clone(), topics::FEEDBACK_EVENTS, group.clone(), 1, counter))
        .task(consumer::task("pipeline ends", log, topics::PIPELINE_RUN_EVENTS, group, 1, ended)))
}
