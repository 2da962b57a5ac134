//! Where a worker process begins: its runtime, its log, its arguments, the artifact store; and how it leaves.

use std::future::Future;

use tidemill_artifacts::Artifacts;
use tidemill_chassis::Fault;
use tidemill_chassis::telemetry::{self, Parent, Telemetry};
use tracing::field::Empty;
use tracing::{Instrument, info_span};

use super::process::{EXIT_STOPPED, Stop, WorkerArguments, fail, install_stop};
use crate::fault_of_artifacts;

/// How a worker's work came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The result is stored.
    Done,
    /// It was asked to stop, and has saved what the next start needs.
    Stopped,
}

/// Runs a worker's work in this process, on a runtime of one thread, and returns the exit code to leave with. What it does belongs to
/// the trace of whoever started it.
pub fn enter<F>(service: &str, work: impl FnOnce(WorkerArguments, Artifacts, Stop) -> F) -> i32
where
    F: Future<Output = Result<Ended, Fault>>,
{
    let name = format!("tidemill-{service}-worker");
    let _telemetry = match telemetry::init(&Telemetry::from_environment("info"), &name) {
        Ok(guard) => guard,
        Err(reason) => return fail(&Fault::internal(reason)),
    };
    let span = info_span!("worker", otel.name = format!("worker {service}"), otel.status_code = Empty);
    let span = Parent::from_environment().adopt(span);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&Fault::unavailable(format!("no runtime: {error}"))),
    };
    let working = async {
        let stop = install_stop().map_err(|error| Fault::unavailable(format!("SIGTERM cannot be caught: {error}")))?;
        let arguments = WorkerArguments::from_environment()?;
        let artifacts = Artifacts::connect(&arguments.artifacts_url).await.map_err(fault_of_artifacts)?;
        work(arguments, artifacts, stop).await
    };
    let ended = runtime.block_on(working.instrument(span.clone()));
    if ended.is_err() {
        span.record("otel.status_code", "ERROR");
    }
    match ended {
        Ok(Ended::Done) => 0,
        Ok(Ended::Stopped) => EXIT_STOPPED,
        Err(fault) => fail(&fault),
    }
}
