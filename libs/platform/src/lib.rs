//! Five URLs in; the ports, the jobs machinery and the clients of the other services out.

mod clients;
pub mod consumer;
mod error;
mod events;
pub mod jobs;
pub mod models;
pub mod process;
mod relay;
mod settings;
pub mod worker;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tidemill_artifacts::Artifacts;
use tidemill_cache::Cache;
use tidemill_chassis::Task;
use tidemill_chassis::settings::{Mistakes, Settings};
use tidemill_chassis::telemetry::Telemetry;
use tidemill_eventlog::Log;
use tidemill_launcher::Launcher;
use tidemill_resources::{Collection, Store};

pub use clients::Clients;
pub use error::{Error, fault_of_artifacts, fault_of_resources};
pub use events::event;
pub use jobs::{Context, Jobs, Runner};
pub use settings::{DEFAULTS, PlatformSettings};

/// All that a service is built on. Cheap to clone.
#[derive(Clone)]
pub struct Platform {
    /// The store of resources.
    pub resources: Arc<dyn Store>,
    /// The event log.
    pub log: Arc<dyn Log>,
    /// The cache.
    pub cache: Arc<dyn Cache>,
    /// The artifact store.
    pub artifacts: Artifacts,
    /// The launcher of workers.
    pub launcher: Arc<dyn Launcher>,
    /// Clients of the other services.
    pub clients: Clients,
    settings: Arc<PlatformSettings>,
    telemetry: Arc<Telemetry>,
    artifacts_url: Arc<str>,
}

impl Platform {
    /// Connects to what the settings name.
    ///
    /// # Errors
    /// Wrong settings; a data directory in use by another process; a part that cannot be reached.
    pub async fn connect(settings: &Settings) -> Result<Self, Error> {
        let clients = Clients::from_settings(settings)?;
        let telemetry: Telemetry = settings.section("telemetry")?;
        let settings: PlatformSettings = settings.section("platform")?;
        let data = settings.data_dir()?;
        std::fs::create_dir_all(&data).map_err(|source| Error::DataDir { path: data.clone(), source })?;
        let or = |url: &str, scheme: &str, name: &str| match url {
            "" => format!("{scheme}://{}", data.join(name).display()),
            url => url.to_owned(),
        };
        // The log first: it holds the lock that keeps a second process out of this data directory.
        let log = tidemill_eventlog::connect(&or(&settings.eventlog_url, "file", "events.db")).await?;
        let resources = tidemill_resources::connect(&or(&settings.resources_url, "sqlite", "resources.db")).await?;
        let cache = tidemill_cache::connect(&settings.cache_url).await?;
        let artifacts_url = or(&settings.artifacts_url, "file", "artifacts");
        let artifacts = Artifacts::connect(&artifacts_url).await?;
        let launcher = tidemill_launcher::connect(&or(&settings.launcher_url, "process", "workers")).await?;
        Ok(Self {
            resources,
            log,
            cache,
            artifacts,
            launcher,
            clients,
            settings: Arc::new(settings),
            telemetry: Arc::new(telemetry),
            artifacts_url: artifacts_url.into(),
        })
    }

    /// The resources of one kind.
    pub fn collection<R: tidemill_proto::Resource>(&self) -> Collection<R> {
        Collection::new(self.resources.clone())
    }

    /// Where the artifacts are, for workers.
    pub fn artifacts_url(&self) -> &str {
        &self.artifacts_url
    }

    /// A folder for a service's temporary files, below the data directory: same disk, cleaned by its owner.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn work_dir(&self, service: &str) -> Result<PathBuf, Error> {
        let path = self.settings.data_dir()?.join("work").join(service);
        std::fs::create_dir_all(&path).map_err(|source| Error::DataDir { path: path.clone(), source })?;
        Ok(path)
    }

    /// This section's settings.
    pub fn settings(&self) -> &PlatformSettings {
        &self.settings
    }

    /// The background task that moves events from the outbox to the log. Every process that writes resources runs one.
    pub fn relay(&self) -> Task {
        relay::task(self.resources.clone(), self.log.clone())
    }
}

/// Replaces a leading `~` by the home folder.
fn expand_home(path: &str) -> Result<PathBuf, Mistakes> {
    match path.strip_prefix('~') {
        Some(rest) => match std::env::var("HOME") {
            Ok(home) => Ok(Path::new(&home).join(rest.trim_start_matches('/'))),
            Err(_) => Err(Mistakes(vec![format!("platform.data_dir = {path:?}: HOME is not set; give a full path")])),
        },
        None => Ok(PathBuf::from(path)),
    }
}
