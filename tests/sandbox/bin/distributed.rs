//! `make up-distributed`: every service as processes of its own over real servers, until Ctrl-C or SIGTERM.
//!
//! `distributed FOLDER [REPLICAS [GRPC_ADDRESS HTTP_ADDRESS]]`; by default the gateway listens where `tidemilld` would, so clients need no
//! flag.

use std::path::PathBuf;

use anyhow::{Context, Result};
use tidemill_chassis::shutdown;
use tidemill_sandbox::{Distributed, SERVICES, Servers};

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let folder =
        PathBuf::from(arguments.next().context("usage: distributed FOLDER [REPLICAS [GRPC_ADDRESS HTTP_ADDRESS]]")?);
    let replicas: usize = arguments.next().map_or(Ok(2), |text| text.parse()).context("REPLICAS should be a number")?;
    let mut address = |usual: &str| {
        let text = arguments.next().unwrap_or_else(|| usual.to_owned());
        text.parse().with_context(|| format!("{text:?} should be an address such as {usual}"))
    };
    let edge = (address("127.0.0.1:7460")?, address("127.0.0.1:7461")?);
    let stop = shutdown::on_signal()?;
    println!("starting {} services, {replicas} of each, in {}", SERVICES.len(), folder.display());
    let distributed = Distributed::start(&Servers::shared()?, &folder, replicas, Some(edge), "").await?;
    for service in SERVICES {
        let places = distributed.addresses(service);
        let grpc = places.iter().map(|(grpc, _)| grpc.to_string()).collect::<Vec<_>>().join(" ");
        println!("  {service:<14} {grpc}   pid {:?}", distributed.pids(service));
    }
    println!("gRPC http://{}, HTTP http://{}; logs in {}/*/log", edge.0, edge.1, folder.display());
    println!("ready");
    stop.cancelled().await;
    distributed.terminate().await
}
