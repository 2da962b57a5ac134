//! Collects records and feedback into immutable raw dataset versions.

mod collect;
mod download;
mod error;
mod feedback;
mod files;
mod grpc;
mod https;
mod kept;
mod location;
mod npm;
mod records;
mod runner;
mod settings;
mod topic;
mod validate;
mod watch;

use tidemill_chassis::{Service, Settings};
use tidemill_platform::{Jobs, Platform};
use tidemill_proto::ingestion::v1::ingestion_service_server::IngestionServiceServer;
use tidemill_proto::topics;

pub use settings::DEFAULTS;

/// The service: its API, the task that follows topics, and the task that reads dataset versions.
///
/// # Errors
/// Wrong settings; a work folder that cannot be made.
pub fn build(settings: &Settings, platform: &Platform) -> anyhow::Result<Service> {
    let own: settings::IngestionSettings = settings.section("ingestion")?;
    let at_once = own.jobs_at_once;
    let jobs = Jobs::new(platform, "ingestion", topics::INGESTION_TASKS, topics::DATASET_EVENTS);
    let handlers = grpc::Handlers::new(&own, platform, jobs.clone());
    let topics = topic::Topics::new(&own, platform);
    let runner = runner::SourceRunner::new(own, platform)?;
    Ok(Service::new("ingestion")
        .grpc(IngestionServiceServer::new(handlers))
        .task(topics.task())
        .task(jobs.task(at_once, runner)))
}

#[cfg(test)]
mod tests;
