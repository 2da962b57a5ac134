//! Clients of the other services: in this process or in another, by the settings.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use tidemill_chassis::settings::{Mistakes, Settings};
use tidemill_chassis::tls::ClientTls;
use tidemill_chassis::transport::{self, Access, Channel};
use tidemill_proto::evaluation::v1::evaluation_service_client::EvaluationServiceClient;
use tidemill_proto::inference::v1::inference_service_client::InferenceServiceClient;
use tidemill_proto::ingestion::v1::ingestion_service_client::IngestionServiceClient;
use tidemill_proto::pipeline::v1::pipeline_service_client::PipelineServiceClient;
use tidemill_proto::preprocessing::v1::preprocessing_service_client::PreprocessingServiceClient;
use tidemill_proto::registry::v1::registry_service_client::RegistryServiceClient;
use tidemill_proto::training::v1::training_service_client::TrainingServiceClient;

/// Section `[services]`; its keys are checked against the defaults.
#[derive(serde::Deserialize)]
struct Addresses {
    api_key: String,
    tls_ca_file: String,
    tls_certificate_file: String,
    tls_key_file: String,
    #[serde(flatten)]
    services: BTreeMap<String, String>,
}

impl Addresses {
    fn tls(&self) -> Result<Option<ClientTls>, String> {
        let path = |text: &String| (!text.is_empty()).then(|| PathBuf::from(text));
        match (path(&self.tls_ca_file), path(&self.tls_certificate_file), path(&self.tls_key_file)) {
            (None, None, None) => Ok(None),
            (Some(ca), None, None) => ClientTls::new(&ca, None).map(Some),
            (Some(ca), Some(certificate), Some(key)) => ClientTls::new(&ca, Some((&certificate, &key))).map(Some),
            _ => Err("services.tls_certificate_file and services.tls_key_file are set together, and only with \
                      services.tls_ca_file"
                .to_owned()),
        }
    }
}

/// Channels by service name. Those of services in this process are added as they are built, in the order of the call graph.
#[derive(Clone, Default)]
pub struct Clients {
    channels: Arc<RwLock<BTreeMap<String, Channel>>>,
    apart: Arc<Vec<String>>,
}

impl Clients {
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, Mistakes> {
        let addresses: Addresses = settings.section("services")?;
        let mut clients = Self::default();
        let access = Access {
            api_key: (!addresses.api_key.is_empty()).then(|| addresses.api_key.clone()),
            tls: addresses.tls().map_err(|reason| Mistakes(vec![reason]))?,
        };
        let mut mistakes = Vec::new();
        for (service, uris) in addresses.services.iter().filter(|(_, uris)| !uris.is_empty()) {
            match transport::remote(uris, &access) {
                Ok(channel) => clients.add(service, channel),
                Err(reason) => mistakes.push(format!("services.{service}: {reason}")),
            }
        }
        clients.apart =
            Arc::new(addresses.services.into_iter().filter(|(_, uris)| !uris.is_empty()).map(|(s, _)| s).collect());
        if mistakes.is_empty() { Ok(clients) } else { Err(Mistakes(mistakes)) }
    }

    /// Makes a service of this process reachable. One that the settings place elsewhere stays there.
    pub fn add(&self, service: &str, channel: Channel) {
        let mut channels = self.channels.write().expect("no holder of this lock panics");
        channels.entry(service.to_owned()).or_insert(channel);
    }

    /// A channel to a service that the settings place in another process; nothing for one of this process.
    pub fn apart(&self, service: &str) -> Option<Channel> {
        self.apart.iter().any(|apart| apart == service).then(|| self.channel(service))
    }

    fn channel(&self, service: &str) -> Channel {
        let channels = self.channels.read().expect("no holder of this lock panics");
        channels.get(service).cloned().unwrap_or_else(|| nowhere(service))
    }
}

/// Answers UNAVAILABLE and names the setting that is missing.
fn nowhere(service: &str) -> Channel {
    let text = format!("the {service} service is not in this process, and services.{service} does not say where it is");
    Channel::new(tower::service_fn(move |_request| {
        let answer = tonic::Status::unavailable(text.clone()).into_http();
        async move { Ok(answer) }
    }))
}

macro_rules! clients {
    ($($name:ident => $client:ident),* $(,)?) => {
        impl Clients {
            $(
                #[doc = concat!("A client of the ", stringify!($name), " service.")]
                pub fn $name(&self) -> $client<Channel> {
                    $client::new(self.channel(stringify!($name))).max_decoding_message_size(64 << 20)
                }
            )*
        }
    };
}

clients! {
    ingestion => IngestionServiceClient,
    preprocessing => PreprocessingServiceClient,
    training => TrainingServiceClient,
    evaluation => EvaluationServiceClient,
    registry => RegistryServiceClient,
    inference => InferenceServiceClient,
    pipeline => PipelineServiceClient,
}
