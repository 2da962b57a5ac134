//! Generated clients of every service over one connection.

use anyhow::Result;
use tidemill_chassis::transport::{self, Channel};
use tidemill_proto::evaluation::v1::evaluation_service_client::EvaluationServiceClient;
use tidemill_proto::inference::v1::inference_service_client::InferenceServiceClient;
use tidemill_proto::ingestion::v1::ingestion_service_client::IngestionServiceClient;
use tidemill_proto::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use tidemill_proto::preprocessing::v1::preprocessing_service_client::PreprocessingServiceClient;
use tidemill_proto::registry::v1::registry_service_client::RegistryServiceClient;
use tidemill_proto::training::v1::study_service_client::StudyServiceClient;
use tidemill_proto::training::v1::training_service_client::TrainingServiceClient;
use tidemill_standalone::Endpoints;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// One client a service. Clone the fields before use, as generated clients want.
#[derive(Clone)]
pub struct Clients {
    /// Ingestion.
    pub ingestion: IngestionServiceClient<Channel>,
    /// Preprocessing.
    pub preprocessing: PreprocessingServiceClient<Channel>,
    /// Training.
    pub training: TrainingServiceClient<Channel>,
    /// Studies.
    pub studies: StudyServiceClient<Channel>,
    /// Evaluation.
    pub evaluation: EvaluationServiceClient<Channel>,
    /// Registry.
    pub registry: RegistryServiceClient<Channel>,
    /// Inference.
    pub inference: InferenceServiceClient<Channel>,
    /// Pipeline.
    pub pipeline: PipelineServiceClient<Channel>,
    health: HealthClient<Channel>,
}

impl Clients {
    /// Clients of a daemon; connects at the first call.
    pub fn connect(endpoints: &Endpoints) -> Result<Self> {
        let channel = transport::remote(&format!("http://{}", endpoints.grpc), &Default::default())
            .map_err(anyhow::Error::msg)?;
        Ok(Self {
            ingestion: IngestionServiceClient::new(channel.clone()),
            preprocessing: PreprocessingServiceClient::new(channel.clone()),
            training: TrainingServiceClient::new(channel.clone()),
            studies: StudyServiceClient::new(channel.clone()),
            evaluation: EvaluationServiceClient::new(channel.clone()),
            registry: RegistryServiceClient::new(channel.clone()),
            inference: InferenceServiceClient::new(channel.clone()),
            pipeline: PipelineServiceClient::new(channel.clone()),
            health: HealthClient::new(channel),
        })
    }

    /// Waits until the daemon says that it serves.
    pub async fn ready(&self) -> Result<()> {
        self.serving("").await
    }

    /// Waits until it says so of one service, by its full gRPC name.
    pub async fn serving(&self, service: &str) -> Result<()> {
        crate::eventually("SERVING", async || {
            let answer = self.health.clone().check(HealthCheckRequest { service: service.to_owned() }).await.ok()?;
            (answer.get_ref().status == ServingStatus::Serving as i32).then_some(())
        })
        .await
    }
}
