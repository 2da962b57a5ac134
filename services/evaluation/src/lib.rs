//! Measures models: bits per byte of held-out documents beside what compressors reach on the same bytes, and samples.

mod assignment;
mod baseline;
mod documents;
mod error;
mod grpc;
mod masked;
mod outcome;
mod rows;
mod runner;
mod sample;
mod score;
mod sequences;
mod settings;
mod subject;
mod validate;
mod worker;
mod xz;

use tidemill_chassis::{Service, Settings};
use tidemill_platform::{Jobs, Platform};
use tidemill_proto::evaluation::v1::Evaluation;
use tidemill_proto::evaluation::v1::evaluation_service_server::EvaluationServiceServer;
use tidemill_proto::topics;

pub use settings::DEFAULTS;
pub use worker::worker_main;

use grpc::Handlers;
use runner::EvaluationRunner;
use settings::EvaluationSettings;

/// The service: its gRPC face and the task that runs evaluations.
///
/// # Errors
/// Wrong settings.
pub fn build(settings: &Settings, platform: &Platform) -> anyhow::Result<Service> {
    let own: EvaluationSettings = settings.section("evaluation")?;
    let jobs = Jobs::<Evaluation>::new(platform, "evaluation", topics::EVALUATION_TASKS, topics::EVALUATION_EVENTS);
    let runner = EvaluationRunner { platform: platform.clone(), threads: own.threads };
    let task = jobs.task(own.jobs_at_once.max(1), runner);
    let handlers = Handlers { platform: platform.clone(), jobs };
    Ok(Service::new("evaluation").grpc(EvaluationServiceServer::new(handlers)).task(task))
}
