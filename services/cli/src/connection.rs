//! The connection to a server, and the generated clients over it.

use std::time::Duration;

use tidemill_chassis::telemetry;
use tidemill_proto::evaluation::v1::evaluation_service_client::EvaluationServiceClient;
use tidemill_proto::inference::v1::inference_service_client::InferenceServiceClient;
use tidemill_proto::ingestion::v1::ingestion_service_client::IngestionServiceClient;
use tidemill_proto::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use tidemill_proto::preprocessing::v1::preprocessing_service_client::PreprocessingServiceClient;
use tidemill_proto::registry::v1::registry_service_client::RegistryServiceClient;
use tidemill_proto::training::v1::study_service_client::StudyServiceClient;
use tidemill_proto::training::v1::training_service_client::TrainingServiceClient;
use tonic::metadata::{Ascii, MetadataKey, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::failure::Failure;

/// A call gets this long until its answer begins; streams may then go on.
const CALL_LIMIT: Duration = Duration::from_secs(180);

/// What generated clients run over.
pub(crate) type Transport = InterceptedService<Channel, ApiKey>;

/// An open connection.
#[derive(Clone)]
pub(crate) struct Connection {
    transport: Transport,
}

/// Adds the API key, and the trace that a command belongs to, to every call.
#[derive(Clone)]
pub(crate) struct ApiKey(Option<MetadataValue<Ascii>>);

impl Interceptor for ApiKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(key) = &self.0 {
            request.metadata_mut().insert("authorization", key.clone());
        }
        for (name, value) in telemetry::current() {
            if let (Ok(name), Ok(value)) = (name.parse::<MetadataKey<Ascii>>(), value.parse()) {
                request.metadata_mut().insert(name, value);
            }
        }
        Ok(request)
    }
}

macro_rules! clients {
    ($($(#[$doc:meta])* $name:ident: $client:ident,)*) => {$(
        $(#[$doc])*
        pub(crate) fn $name(&self) -> $client<Transport> {
            $client::new(self.transport.clone())
        }
    )*};
}

impl Connection {
    /// Connects, or says that nothing answers.
    pub(crate) async fn open(server: &str, api_key: Option<&str>) -> Result<Self, Failure> {
        let wrong =
            |text: String| Failure::Usage(format!("--server {server}: {text}; write it as http://127.0.0.1:7460"));
        let uri = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
        let endpoint = Endpoint::from_shared(uri).map_err(|error| wrong(error.to_string()))?;
        let key = api_key
            .map(|key| format!("Bearer {key}").parse())
            .transpose()
            .map_err(|_| Failure::Usage("--api-key holds characters that a header cannot carry".to_owned()))?;
        let endpoint = endpoint.connect_timeout(Duration::from_secs(5)).timeout(CALL_LIMIT).tcp_nodelay(true);
        let channel = endpoint.connect().await.map_err(|_| {
            Failure::Unavailable(format!(
                "no server answers at {server}; start one with `tidemill up`, or name another with --server"
            ))
        })?;
        Ok(Self { transport: InterceptedService::new(channel, ApiKey(key)) })
    }

    clients! {
        /// Sources, datasets, feedback.
        ingestion: IngestionServiceClient,
        /// Prepared datasets.
        preprocessing: PreprocessingServiceClient,
        /// Training.
        training: TrainingServiceClient,
        /// Studies.
        studies: StudyServiceClient,
        /// Evaluations.
        evaluation: EvaluationServiceClient,
        /// Models, aliases, lineage.
        registry: RegistryServiceClient,
        /// Deployments, generation.
        inference: InferenceServiceClient,
        /// Pipelines and their runs.
        pipeline: PipelineServiceClient,
    }

    /// Whether a service says that it serves; an empty name asks for the whole server.
    pub(crate) async fn health(&self, service: &str) -> Result<&'static str, Status> {
        let request = HealthCheckRequest { service: service.to_owned() };
        let response: HealthCheckResponse =
            HealthClient::new(self.transport.clone()).check(request).await?.into_inner();
        Ok(match response.status() {
            ServingStatus::Serving => "SERVING",
            ServingStatus::NotServing => "NOT_SERVING",
            _ => "UNKNOWN",
        })
    }

    /// Whether the whole server serves.
    pub(crate) async fn serving(&self) -> bool {
        matches!(self.health("").await, Ok("SERVING"))
    }
}
