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
mod study;
mod validate;
mod worker;

use tidemill_chassis::{Service, Settings};
use tidemill_platform::{Jobs, Platform};
use tidemill_proto::topics;
use tidemill_proto::training::v1::study_service_server::StudyServiceServer;
use tidemill_proto::training::v1::training_service_server::TrainingServiceServer;
use tidemill_proto::training::v1::{Study, TrainingJob};

pub use settings::DEFAULTS;
pub use worker::worker_main;

use grpc::Handlers;
use runner::TrainingRunner;
use settings::TrainingSettings;
use study::StudyRunner;

/// Studies driven at the same time by one process. A study mostly waits for its jobs.
const STUDIES_AT_ONCE: usize = 4;

/// The service: its gRPC faces, and the tasks that run jobs and drive studies.
///
/// # Errors
/// Wrong settings.
pub fn build(settings: &Settings, platform: &Platform) -> anyhow::Result<Service> {
    let own: TrainingSettings = settings.section("training")?;
    let jobs = Jobs::<TrainingJob>::new(platform, "training", topics::TRAINING_TASKS, topics::TRAINING_JOB_EVENTS);
    let runner = TrainingRunner { platform: platform.clone(), threads: own.threads };
    let task = jobs.task(own.jobs_at_once.max(1), runner);
    let studies = Jobs::<Study>::new(platform, "training", topics::STUDY_TASKS, topics::STUDY_EVENTS);
    let driven = studies.task(STUDIES_AT_ONCE, StudyRunner { platform: platform.clone(), jobs: jobs.clone() });
    let of_studies = study::Handlers { platform: platform.clone(), studies, jobs: jobs.clone() };
    let handlers = Handlers { platform: platform.clone(), jobs };
    Ok(Service::new("training")
        .grpc(TrainingServiceServer::new(handlers))
        .grpc(StudyServiceServer::new(of_studies))
        .task(task)
        .task(driven))
}

#[cfg(test)]
mod tests;
