//! `tidemilld`: every service in one process.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tidemill_chassis::{shutdown, telemetry};
use tidemill_platform::process::{self, EXIT_USAGE, Failure};
use tidemill_standalone::{Daemon, WORKERS, model};

/// Tidemill in one process: gRPC on 127.0.0.1:7460, OpenAI-style HTTP on 127.0.0.1:7461, data in ~/.local/share/tidemill.
///
/// Settings come from embedded defaults, then the TOML file that TIDEMILL_CONFIG names, then the environment, for example
/// TIDEMILL__PLATFORM__DATA_DIR=/data or TIDEMILL__SERVER__HTTP_ADDRESS=127.0.0.1:8080. Stop it with Ctrl-C or SIGTERM: work in
/// progress is saved and goes on at the next start.
#[derive(Parser)]
#[command(name = "tidemilld", version)]
struct Arguments {
    /// Print the merged settings, secrets masked, and leave.
    #[arg(long)]
    print_config: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Model(model::Arguments),
    /// Run as a worker; the daemon starts these itself.
    #[command(hide = true)]
    Worker {
        /// Whose worker.
        service: String,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match &arguments.command {
        Some(Command::Model(arguments)) => return model::execute(arguments),
        Some(Command::Worker { service }) => return work(service),
        None => {}
    }
    process::run(async move {
        let settings = tidemill_standalone::settings()?;
        if arguments.print_config {
            print!("{}", settings.dump());
            return Ok(());
        }
        let _telemetry = telemetry::init(&settings.section("telemetry")?, "tidemilld").map_err(Failure::Telemetry)?;
        let stop = shutdown::on_signal()?;
        Daemon::open(&settings).await?.serve(stop).await
    })
}

fn work(service: &str) -> ExitCode {
    match WORKERS.iter().find(|(name, _)| *name == service) {
        Some((_, worker)) => process::exit_code(worker()),
        None => {
            eprintln!("there is no worker {service:?}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}
