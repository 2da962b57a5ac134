//! The gRPC of every service that runs in another process, at the gateway's own address: clients need to know one.

use tidemill_chassis::transport::Channel;
use tidemill_platform::Clients;
use tidemill_proto::evaluation::v1::evaluation_service_server;
use tidemill_proto::inference::v1::inference_service_server;
use tidemill_proto::ingestion::v1::ingestion_service_server;
use tidemill_proto::pipeline::v1::pipeline_service_server;
use tidemill_proto::preprocessing::v1::preprocessing_service_server;
use tidemill_proto::registry::v1::registry_service_server;
use tidemill_proto::training::v1::{study_service_server, training_service_server};

const SERVICES: &[(&str, &str)] = &[
    ("evaluation", evaluation_service_server::SERVICE_NAME),
    ("inference", inference_service_server::SERVICE_NAME),
    ("ingestion", ingestion_service_server::SERVICE_NAME),
    ("pipeline", pipeline_service_server::SERVICE_NAME),
    ("preprocessing", preprocessing_service_server::SERVICE_NAME),
    ("registry", registry_service_server::SERVICE_NAME),
    ("training", study_service_server::SERVICE_NAME),
    ("training", training_service_server::SERVICE_NAME),
];

/// Full gRPC names, and the channels that lead there. In one process with the others there is nothing to forward.
pub(crate) fn forwarded(clients: &Clients) -> impl Iterator<Item = (&'static str, Channel)> + '_ {
    SERVICES.iter().filter_map(|(service, full_name)| Some((*full_name, clients.apart(service)?)))
}
