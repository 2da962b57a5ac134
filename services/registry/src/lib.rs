//! The registry: models and their versions, aliases that move only through the gate, and lineage. Calls no other service.

mod draft;
mod error;
mod gate;
mod grpc;
mod lineage;
mod models;
mod objectives;
mod promote;
#[cfg(test)]
mod tests;
mod violations;

use tidemill_chassis::{Service, Settings};
use tidemill_platform::Platform;
use tidemill_proto::registry::v1::registry_service_server::RegistryServiceServer;

use crate::error::Error;

/// Builds the service. It has no settings of its own.
///
/// # Errors
/// None at present; the shape is that of every service.
pub fn build(_settings: &Settings, platform: &Platform) -> anyhow::Result<Service> {
    Ok(Service::new("registry").grpc(RegistryServiceServer::new(grpc::Handlers::new(platform))))
}
