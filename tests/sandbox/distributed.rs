//! Every service as processes of its own, in replicas, over the real servers: Kafka, PostgreSQL, Redis and S3.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tidemill_standalone::Endpoints;

use crate::{Clients, Servers, program};

/// The services, each after those that it calls.
pub const SERVICES: &[&str] =
    &["registry", "ingestion", "preprocessing", "training", "evaluation", "inference", "pipeline", "gateway"];

/// Where a process listens.
#[derive(Clone, Copy)]
struct Place {
    grpc: SocketAddr,
    http: SocketAddr,
    admin: SocketAddr,
}

/// One replica of a service.
struct Replica {
    service: &'static str,
    settings: PathBuf,
    log: PathBuf,
    place: Place,
    child: Child,
}

/// All of them. Killed when dropped.
pub struct Distributed {
    /// Where clients go: the first gateway.
    pub endpoints: Endpoints,
    replicas: Vec<Replica>,
}

impl Distributed {
    /// Starts `replicas` of each service over `servers`, in `folder`, and waits until all of them serve. `more` is TOML that every
    /// process gets; `edge` are the addresses of the first gateway, free ones where nothing is said.
    ///
    /// # Errors
    /// A program that is not built, a process that does not come up.
    pub async fn start(
        servers: &Servers,
        folder: &Path,
        replicas: usize,
        edge: Option<(SocketAddr, SocketAddr)>,
        more: &str,
    ) -> Result<Self> {
        let mut places: BTreeMap<&str, Vec<Place>> = BTreeMap::new();
        let mut ports = Ports::default();
        for service in SERVICES {
            for index in 0..replicas {
                let mut place = Place { grpc: ports.free()?, http: ports.free()?, admin: ports.free()? };
                if let (&"gateway", 0, Some((grpc, http))) = (service, index, edge) {
                    place = Place { grpc, http, ..place };
                }
                places.entry(service).or_default().push(place);
            }
        }
        drop(ports);
        let mut started =
            Self { endpoints: endpoints_of(std::process::id(), &places["gateway"][0]), replicas: Vec::new() };
        for service in SERVICES {
            for (index, place) in places[service].iter().enumerate() {
                let own = folder.join(format!("{service}-{index}"));
                std::fs::create_dir_all(&own)?;
                let settings = own.join("tidemill.toml");
                std::fs::write(&settings, toml(folder, &own, place, servers, &places)? + more)?;
                let log = own.join("log");
                let child = spawn(service, &settings, &log)?;
                started.replicas.push(Replica { service, settings, log, place: *place, child });
            }
        }
        for index in 0..started.replicas.len() {
            started.wait_until_serving(index).await?;
        }
        Ok(started)
    }

    /// Addresses of a service's replicas: gRPC and HTTP.
    pub fn addresses(&self, service: &str) -> Vec<(SocketAddr, SocketAddr)> {
        let of_service = self.replicas.iter().filter(|replica| replica.service == service);
        of_service.map(|replica| (replica.place.grpc, replica.place.http)).collect()
    }

    /// Where replicas tell their metrics, with the name of their service.
    pub fn admins(&self) -> Vec<(&'static str, SocketAddr)> {
        self.replicas.iter().map(|replica| (replica.service, replica.place.admin)).collect()
    }

    /// Stops one replica where it stands (SIGSTOP): its connections stay open, and it says nothing.
    ///
    /// # Errors
    /// There is no such replica.
    pub fn pause(&self, service: &str, index: usize) -> Result<()> {
        signal(&self.replicas[self.position(service, index)?], Signal::STOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// There is no such replica.
    pub fn resume(&self, service: &str, index: usize) -> Result<()> {
        signal(&self.replicas[self.position(service, index)?], Signal::CONT)
    }

    /// Restarts one replica as a rolling update would: SIGTERM, its end, a new process at the same place, until that serves.
    ///
    /// # Errors
    /// It does not end well, or does not come up again.
    pub async fn restart(&mut self, service: &str, index: usize) -> Result<()> {
        let at = self.position(service, index)?;
        let replica = &mut self.replicas[at];
        terminate(replica).await?;
        replica.child = spawn(replica.service, &replica.settings, &replica.log)?;
        self.wait_until_serving(at).await
    }

    /// Kills one replica at once and starts it again.
    ///
    /// # Errors
    /// It does not come up again.
    pub async fn kill(&mut self, service: &str, index: usize) -> Result<()> {
        let at = self.position(service, index)?;
        let replica = &mut self.replicas[at];
        replica.child.kill()?;
        replica.child.wait()?;
        replica.child = spawn(replica.service, &replica.settings, &replica.log)?;
        self.wait_until_serving(at).await
    }

    /// Process ids of a service's replicas.
    pub fn pids(&self, service: &str) -> Vec<u32> {
        self.replicas.iter().filter(|replica| replica.service == service).map(|replica| replica.child.id()).collect()
    }

    /// Stops all, the edge first, and fails if one does not end well.
    ///
    /// # Errors
    /// A process that left with another code than 0.
    pub async fn terminate(mut self) -> Result<()> {
        while let Some(mut replica) = self.replicas.pop() {
            terminate(&mut replica).await?;
        }
        Ok(())
    }

    fn position(&self, service: &str, index: usize) -> Result<usize> {
        let mut of_service = self.replicas.iter().enumerate().filter(|(_, replica)| replica.service == service);
        of_service.nth(index).map(|(at, _)| at).with_context(|| format!("there is no replica {index} of {service}"))
    }

    async fn wait_until_serving(&mut self, at: usize) -> Result<()> {
        let replica = &mut self.replicas[at];
        let endpoints = endpoints_of(replica.child.id(), &replica.place);
        let clients = Clients::connect(&endpoints)?;
        tokio::select! {
            ready = clients.ready() => ready.with_context(|| format!("{} at {}", replica.service, replica.place.grpc)),
            status = ended(&mut replica.child) => {
                let log = std::fs::read_to_string(&replica.log).unwrap_or_default();
                let last = log.lines().rev().take(5).collect::<Vec<_>>().join("\n");
                bail!("tidemill-{} ended at its start with {status}: {last}", replica.service)
            }
        }
    }
}

impl Drop for Distributed {
    fn drop(&mut self) {
        for replica in &mut self.replicas {
            // It may be gone already.
            let _gone = replica.child.kill();
            let _status = replica.child.wait();
        }
    }
}

/// Free ports, held until all are known, so that none is given twice.
#[derive(Default)]
struct Ports(Vec<TcpListener>);

impl Ports {
    fn free(&mut self) -> Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        self.0.push(listener);
        Ok(address)
    }
}

fn endpoints_of(pid: u32, place: &Place) -> Endpoints {
    Endpoints { pid, grpc: place.grpc, http: place.http, admin: None }
}

fn toml(
    folder: &Path,
    own: &Path,
    place: &Place,
    servers: &Servers,
    places: &BTreeMap<&str, Vec<Place>>,
) -> Result<String> {
    let mut services = String::new();
    for (service, replicas) in places.iter().filter(|(service, _)| **service != "gateway") {
        let uris: Vec<String> = replicas.iter().map(|place| format!("http://{}", place.grpc)).collect();
        services.push_str(&format!("{service} = {:?}\n", uris.join(",")));
    }
    Ok(format!(
        "[server]\ngrpc_address = \"{}\"\nhttp_address = \"{}\"\nadmin_address = \"{}\"\ndrain_delay_seconds = 1\n\
         [platform]\ndata_dir = {:?}\nresources_url = {:?}\neventlog_url = {:?}\ncache_url = {:?}\nartifacts_url = {:?}\n\
         launcher_url = \"process://{}\"\nworker_program = {:?}\n[services]\n{services}",
        place.grpc,
        place.http,
        place.admin,
        own.join("data"),
        servers.resources,
        servers.eventlog,
        servers.cache,
        servers.artifacts,
        // One folder for all replicas: whoever takes a job over adopts its worker.
        folder.join("workers").display(),
        program("tidemilld")?,
    ))
}

fn spawn(service: &str, settings: &Path, log: &Path) -> Result<Child> {
    let log = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
    let mut command = Command::new(program(&format!("tidemill-{service}"))?);
    command.env("TIDEMILL_CONFIG", settings).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Ok(command.spawn()?)
}

async fn ended(child: &mut Child) -> std::process::ExitStatus {
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return status;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

fn signal(replica: &Replica, signal: Signal) -> Result<()> {
    let pid = Pid::from_raw(replica.child.id().cast_signed()).context("a child has a pid")?;
    Ok(kill_process(pid, signal)?)
}

async fn terminate(replica: &mut Replica) -> Result<()> {
    signal(replica, Signal::TERM)?;
    let status = crate::eventually("the end after SIGTERM", async || replica.child.try_wait().ok().flatten()).await?;
    if !status.success() {
        bail!("tidemill-{} left with {status} after SIGTERM; its log is {}", replica.service, replica.log.display());
    }
    Ok(())
}
