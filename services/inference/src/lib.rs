//! Serves models by alias: deployments follow the registry, an engine a model writes answers, and every answer leaves a receipt.

mod engine;
mod fleet;
mod generation;
mod grpc;
mod loaded;
mod news;
mod settings;
mod stop;
mod told;
mod validate;

use std::sync::Arc;
use std::time::Duration;

use tidemill_chassis::{Service, Settings, Task};
use tidemill_platform::{Platform, consumer};
use tidemill_proto::event::v1::{AliasMoved, DeploymentCreated};
use tidemill_proto::inference::v1::inference_service_server::InferenceServiceServer;
use tidemill_proto::topics;

/// Defaults of the section `[inference]`.
pub const DEFAULTS: &str = include_str!("default.toml");

/// Builds the service.
///
/// # Errors
/// Wrong settings; no folder for models.
pub fn build(settings: &Settings, platform: &Platform) -> anyhow::Result<Service> {
    let own: settings::InferenceSettings = settings.section("inference")?;
    own.check()?;
    let limits = engine::Limits {
        running: own.max_running,
        waiting: own.max_waiting,
        prefill: own.prefill_tokens,
        threads: own.threads,
    };
    let fleet = Arc::new(fleet::Fleet::new(platform, limits)?);
    Ok(serve(platform, fleet, Duration::from_secs(own.reconcile_seconds)))
}

fn serve(platform: &Platform, fleet: Arc<fleet::Fleet>, pause: Duration) -> Service {
    let handlers =
        grpc::Handlers { fleet: fleet.clone(), answers: platform.collection(), deployments: platform.collection() };
    // Every process must hear every event: a group of its own, new at every start.
    let group = format!("inference-{}", uuid::Uuid::new_v4().simple());
    let aliases = news::Ring::<AliasMoved>::new(&fleet);
    let deployments = news::Ring::<DeploymentCreated>::new(&fleet);
    Service::new("inference")
        .grpc(InferenceServiceServer::new(handlers))
        .ready_when(fleet.ready())
        .task(Task::new("fleet", move |stop| fleet.run(pause, stop)))
        .task(consumer::task("aliases", platform.log.clone(), topics::ALIAS_EVENTS, group.clone(), 1, aliases))
        .task(consumer::task("deployments", platform.log.clone(), topics::DEPLOYMENT_EVENTS, group, 1, deployments))
}

#[cfg(test)]
mod tests;
