//! Trains models in worker processes: jobs that survive any death, and end with a registered model version.

mod checkpoints;
mod error;
mod gauges;
mod grpc;
mod history;
pub mod import;
pub mod learning;
mod runner;
mod settings;
mod validate;
mod worker;

use tidemill_chassis::{Service, Settings};
use tidemill_platform::{Jobs, Platform};
use tidemill_proto::topics;
use tidemill_proto::training::v1::TrainingJob;
use tidemill_proto::training::v1::training_service_server::TrainingServiceServer;

pub use settings::DEFAULTS;
pub use worker::worker_main;

use grpc::Handlers;
use runner::TrainingRunner;
use settings::TrainingSettings;

/// The service: its gRPC face and the task that runs jobs.
///
/// # Errors
/// Wrong settings.
pub fn build(settings: &Settings, platform: &Platform) -> anyhow::Result<Service> {
    let own: TrainingSettings = settings.section("training")?;
    let jobs = Jobs::<TrainingJob>::new(platform, "training", topics::TRAINING_TASKS, topics::TRAINING_JOB_EVENTS);
    let runner = TrainingRunner { platform: platform.clone(), threads: own.threads };
    let task = jobs.task(own.jobs_at_once.max(1), runner);
    let handlers = Handlers { platform: platform.clone(), jobs };
    Ok(Service::new("training").grpc(TrainingServiceServer::new(handlers)).task(task))
}

#[cfg(test)]
mod tests;
