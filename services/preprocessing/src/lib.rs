//! Turns raw dataset versions into prepared ones: the same inputs and recipe give the same bytes.

mod cache;
mod contents;
mod error;
mod fates;
mod grpc;
mod prepare;
mod runner;
mod validate;
mod watch;

use tidemill_chassis::{Service, Settings};
use tidemill_platform::{Jobs, Platform};
use tidemill_proto::preprocessing::v1::preprocessing_service_server::PreprocessingServiceServer;
use tidemill_proto::topics;

/// Preparation takes all cores: one at a time.
const AT_ONCE: usize = 1;

/// The service: its API, and the task that prepares datasets.
///
/// # Errors
/// A work folder that cannot be made.
pub fn build(_settings: &Settings, platform: &Platform) -> anyhow::Result<Service> {
    let jobs = Jobs::new(platform, "preprocessing", topics::PREPROCESSING_TASKS, topics::PREPROCESSING_JOB_EVENTS);
    let runner = runner::RecipeRunner::new(platform)?;
    let handlers = grpc::Handlers::new(platform, jobs.clone());
    Ok(Service::new("preprocessing").grpc(PreprocessingServiceServer::new(handlers)).task(jobs.task(AT_ONCE, runner)))
}

#[cfg(test)]
mod tests;
