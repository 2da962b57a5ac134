//! A service as a process of its own: settings, telemetry, platform, build, serve until a signal.

use std::process::ExitCode;
use std::time::Duration;

use tidemill_chassis::{Service, Settings, server, shutdown, telemetry};

use crate::{Error, Platform};

/// Exit code for wrong settings (EX_USAGE of sysexits.h).
pub const EXIT_USAGE: u8 = 64;
/// What threads that still work get after everything else has stopped.
const LAST_MOMENTS: Duration = Duration::from_millis(500);

/// Why a process ends.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Wrong settings.
    #[error(transparent)]
    Settings(#[from] tidemill_chassis::settings::Mistakes),
    /// Wrong setting of the telemetry.
    #[error("{0}")]
    Telemetry(String),
    /// A part is away or in use.
    #[error(transparent)]
    Platform(#[from] Error),
    /// A listener or task.
    #[error(transparent)]
    Server(#[from] server::Error),
    /// A service could not be built.
    #[error("the {service} service cannot start: {reason}")]
    Build {
        /// Which.
        service: &'static str,
        /// Why.
        reason: String,
    },
    /// The operating system.
    #[error(transparent)]
    System(#[from] std::io::Error),
}

/// The `main` of one service: `tidemill-<name>` serves, `tidemill-<name> worker <name>` is its worker, if it has any.
pub fn main(
    name: &'static str,
    defaults: &'static [&'static str],
    build: fn(&Settings, &Platform) -> Result<Service, anyhow::Error>,
    worker: Option<fn() -> i32>,
) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match (arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), worker) {
        ([], _) => {}
        (["worker", service], Some(worker)) if *service == name => return exit_code(worker()),
        _ => {
            eprintln!("usage: tidemill-{name}   (settings: TIDEMILL_CONFIG and TIDEMILL__SECTION__KEY)");
            return ExitCode::from(EXIT_USAGE);
        }
    }
    run(async move {
        let layers: Vec<&str> = std::iter::once(crate::DEFAULTS).chain(defaults.iter().copied()).collect();
        let settings = Settings::load(&layers)?;
        let service = format!("tidemill-{name}");
        let _telemetry = telemetry::init(&settings.section("telemetry")?, &service).map_err(Failure::Telemetry)?;
        let platform = Platform::connect(&settings).await?;
        let service = build(&settings, &platform)
            .map_err(|error| Failure::Build { service: name, reason: format!("{error:#}") })?;
        let bound = server::bind(&settings.section("server")?, service.has_http()).await?;
        tracing::info!(service = name, grpc = %bound.grpc_address(), "serving");
        let relay = Service::new("relay").task(platform.relay());
        bound.serve(vec![service, relay], shutdown::on_signal()?).await?;
        Ok(())
    })
}

/// Runs a process to its end, prints why it failed, and gives the exit code.
pub fn run(work: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("the runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(work);
    runtime.shutdown_timeout(LAST_MOMENTS);
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            match failure {
                Failure::Settings(_) | Failure::Telemetry(_) | Failure::Server(server::Error::Setting(_)) => {
                    ExitCode::from(EXIT_USAGE)
                }
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// A worker's exit code as this process'.
pub fn exit_code(code: i32) -> ExitCode {
    ExitCode::from(u8::try_from(code).unwrap_or(1))
}
