//! Every service in one process: embedded adapters, loopback, the same code and API as in a cluster.

pub mod model;

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tidemill_chassis::settings::Mistakes;
use tidemill_chassis::{Service, Settings, server};
use tidemill_platform::process::Failure;
use tidemill_platform::{Platform, PlatformSettings};
use tokio_util::sync::CancellationToken;

/// Defaults of every section, in the order of the documentation.
const DEFAULTS: &[&str] = &[
    tidemill_platform::DEFAULTS,
    tidemill_ingestion::DEFAULTS,
    tidemill_training::DEFAULTS,
    tidemill_evaluation::DEFAULTS,
    tidemill_inference::DEFAULTS,
    tidemill_gateway::DEFAULTS,
];

type Build = fn(&Settings, &Platform) -> anyhow::Result<Service>;

/// The services, each after those that it calls.
const SERVICES: &[(&str, Build)] = &[
    ("registry", tidemill_registry::build),
    ("ingestion", tidemill_ingestion::build),
    ("preprocessing", tidemill_preprocessing::build),
    ("training", tidemill_training::build),
    ("evaluation", tidemill_evaluation::build),
    ("inference", tidemill_inference::build),
    ("pipeline", tidemill_pipeline::build),
    ("gateway", tidemill_gateway::build),
];

/// Runs a worker to its end and returns the exit code.
type WorkerMain = fn() -> i32;

/// The workers that this program can be.
pub const WORKERS: &[(&str, WorkerMain)] =
    &[("training", tidemill_training::worker_main), ("evaluation", tidemill_evaluation::worker_main)];

/// Loads the settings of all services.
///
/// # Errors
/// Every mistake in them.
pub fn settings() -> Result<Settings, Mistakes> {
    Settings::load(DEFAULTS)
}

/// Settings from a TOML text alone, without file and environment: for daemons inside tests.
///
/// # Errors
/// Every mistake in it.
pub fn settings_from(toml: &str) -> Result<Settings, Mistakes> {
    Settings::from_layers(DEFAULTS, Some(("settings".to_owned(), toml.to_owned())), Default::default())
}

/// Where a running daemon can be reached: the content of `<data_dir>/tidemilld.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Endpoints {
    /// Its process id.
    pub pid: u32,
    /// gRPC address.
    pub grpc: SocketAddr,
    /// HTTP address.
    pub http: SocketAddr,
    /// Where operators ask for metrics and probes, if anywhere.
    pub admin: Option<SocketAddr>,
}

/// Connected and built, with open listeners; nothing is answered yet.
pub struct Daemon {
    bound: server::Bound,
    services: Vec<Service>,
    endpoints: Endpoints,
    endpoints_file: PathBuf,
}

impl Daemon {
    /// Opens the listeners, the data directory and every service.
    ///
    /// # Errors
    /// A port that is taken, a data directory in use, a service that cannot start.
    pub async fn open(settings: &Settings) -> Result<Self, Failure> {
        let bound = server::bind(&settings.section("server")?, true).await?;
        let platform = Platform::connect(settings).await?;
        let mut services = vec![Service::new("relay").task(platform.relay())];
        for (name, build) in SERVICES {
            let service = build(settings, &platform)
                .map_err(|error| Failure::Build { service: name, reason: format!("{error:#}") })?;
            if let Some(channel) = service.local_channel() {
                platform.clients.add(name, channel);
            }
            services.push(service);
        }
        let http = bound.http_address().unwrap_or_else(|| bound.grpc_address());
        let endpoints =
            Endpoints { pid: std::process::id(), grpc: bound.grpc_address(), http, admin: bound.admin_address() };
        let data: PlatformSettings = settings.section("platform")?;
        Ok(Self { bound, services, endpoints, endpoints_file: data.data_dir()?.join("tidemilld.json") })
    }

    /// Where it will answer.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Serves until `stop` is cancelled, then drains.
    ///
    /// # Errors
    /// A listener or a background task that died.
    pub async fn serve(self, stop: CancellationToken) -> Result<(), Failure> {
        let part = self.endpoints_file.with_extension("json.part");
        std::fs::write(&part, serde_json::to_string(&self.endpoints).expect("endpoints are plain data"))?;
        std::fs::rename(&part, &self.endpoints_file)?;
        tracing::info!(grpc = %self.endpoints.grpc, http = %self.endpoints.http, "tidemilld is ready");
        let ended = self.bound.serve(self.services, stop).await;
        // It only helps people and scripts to find a daemon that runs; a stale one does no harm.
        let _absent = std::fs::remove_file(&self.endpoints_file);
        Ok(ended?)
    }
}
