//! A whole Tidemill for one test: its own data directory and ports, in this process, (`SANDBOX=daemon`) as a spawned `tidemilld`, or
//! (`SANDBOX=distributed`) as processes of every service over real servers.

mod alerts;
mod clients;
mod daemon;
mod distributed;
mod load;
mod loops;
mod outcome;
mod receiver;
mod servers;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tidemill_standalone::{Daemon, Endpoints};
use tokio_util::sync::CancellationToken;

pub use alerts::Alerts;
pub use clients::Clients;
pub use daemon::{Spawned, program};
pub use distributed::{Distributed, SERVICES};
pub use load::{Load, complete};
pub use loops::{begin_run, corpus, mini_pipeline, post_feedback, run_to_end, wait_for_run};
pub use outcome::outcome;
pub use receiver::{Received, Receiver, Span};
pub use servers::{OwnServers, Servers};

/// How long a condition may take to come true before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A running Tidemill and its clients.
pub struct Sandbox {
    /// Data directory.
    pub data: PathBuf,
    /// Clients of every service.
    pub clients: Clients,
    endpoints: Endpoints,
    host: Host,
    // Removed last, after whatever writes there has stopped.
    _folder: tempfile::TempDir,
}

enum Host {
    Here { stop: CancellationToken, served: tokio::task::JoinHandle<Result<(), String>> },
    Apart(Spawned),
    Distributed(Distributed),
}

impl Sandbox {
    /// Starts one, in this process or apart as `SANDBOX` says.
    pub async fn start() -> Result<Self> {
        Self::start_with("").await
    }

    /// As [`Sandbox::start`], with more settings as TOML.
    pub async fn start_with(settings: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        let (host, endpoints) = match std::env::var("SANDBOX").as_deref() {
            Ok("process") | Err(_) => {
                let daemon = Daemon::open(&tidemill_standalone::settings_from(&toml(&data, settings)?)?).await?;
                let endpoints = daemon.endpoints().clone();
                let stop = CancellationToken::new();
                let token = stop.clone();
                let served =
                    tokio::spawn(async move { daemon.serve(token).await.map_err(|failure| failure.to_string()) });
                (Host::Here { stop, served }, endpoints)
            }
            Ok("daemon") => {
                let file = folder.path().join("tidemill.toml");
                std::fs::write(&file, toml(&data, settings)?)?;
                let spawned = Spawned::start(&file, &data).await?;
                let endpoints = spawned.endpoints.clone();
                (Host::Apart(spawned), endpoints)
            }
            Ok("distributed") => {
                let distributed = Distributed::start(&Servers::shared()?, &data, 1, None, settings).await?;
                let endpoints = distributed.endpoints.clone();
                (Host::Distributed(distributed), endpoints)
            }
            Ok(other) => bail!("SANDBOX={other} should be process, daemon or distributed"),
        };
        let clients = Clients::connect(&endpoints)?;
        clients.ready().await?;
        Ok(Self { data, clients, endpoints, host, _folder: folder })
    }

    /// The address of an HTTP path.
    pub fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.endpoints.http)
    }

    /// Where it listens.
    pub fn endpoints(&self) -> &Endpoints {
        &self.endpoints
    }

    /// Stops it and fails if it did not end cleanly.
    pub async fn stop(self) -> Result<()> {
        match self.host {
            Host::Here { stop, served } => {
                stop.cancel();
                served.await?.map_err(anyhow::Error::msg)
            }
            Host::Apart(spawned) => spawned.terminate().await.map(|_| ()),
            Host::Distributed(distributed) => distributed.terminate().await,
        }
    }
}

/// The settings of a sandbox: free ports, its own data directory, the built `tidemilld` as worker.
pub fn toml(data: &Path, more: &str) -> Result<String> {
    let mut text = format!(
        "[server]\ngrpc_address = \"127.0.0.1:0\"\nhttp_address = \"127.0.0.1:0\"\nadmin_address = \"127.0.0.1:0\"\n[platform]\ndata_dir = {data:?}\nworker_program = {:?}\n",
        program("tidemilld")?
    );
    text.push_str(more);
    Ok(text)
}

/// Waits until `condition` gives a value.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(value) = condition().await {
            return Ok(value);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None.with_context(|| format!("{what} did not happen within {} s", PATIENCE.as_secs()))
}
