//! The worker's own side: arguments, reports, faults, and the wish of others that it stop.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};
use tidemill_chassis::Fault;
use tonic::Code;

use super::Report;

/// Exit code of a worker that stopped because it was asked to, with everything saved (EX_TEMPFAIL of sysexits.h).
pub const EXIT_STOPPED: i32 = 75;

/// Exit code of rank 0 of a worker that has lost others of its ranks, after it has said how many remain (EX_PROTOCOL of sysexits.h).
pub(super) const EXIT_RANKS_LOST: i32 = 76;

/// Environment variable that carries [`WorkerArguments`] as JSON.
pub(super) const ARGUMENTS: &str = "TIDEMILL_WORKER";

/// What a worker is given.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerArguments {
    /// The job's name, for logs.
    pub job: String,
    /// The job's uid: the result is left under `results/<uid>`.
    pub uid: String,
    /// Where the artifacts are.
    pub artifacts_url: String,
    /// A folder of its own for temporary files; it may hold those of a former attempt.
    pub work_dir: PathBuf,
    /// The job as its service describes it, in hex.
    pub spec: String,
}

impl WorkerArguments {
    /// Reads the arguments that the parent gave.
    ///
    /// # Errors
    /// The process was not started by a launcher.
    pub fn from_environment() -> Result<Self, Fault> {
        let text = std::env::var(ARGUMENTS)
            .map_err(|_| Fault::invalid(ARGUMENTS, "is not set; workers are started by their service, not by hand"))?;
        serde_json::from_str(&text).map_err(|error| Fault::invalid(ARGUMENTS, error.to_string()))
    }
}

/// Tells the parent how far the worker is.
pub fn report(report: &Report) {
    line("progress", &serde_json::to_string(report).expect("a report is plain data"));
}

#[derive(Serialize, Deserialize)]
struct FaultLine {
    code: i32,
    reason: String,
    message: String,
}

/// Tells the parent why the worker gives up, and returns the exit code to leave with.
pub fn fail(fault: &Fault) -> i32 {
    let fault_line =
        FaultLine { code: fault.code as i32, reason: fault.reason.to_owned(), message: fault.message.clone() };
    line("fault", &serde_json::to_string(&fault_line).expect("a fault is plain data"));
    1
}

/// Tells the parent with how many ranks to start the worker again, and returns the exit code to leave with.
pub fn remain(ranks: usize) -> i32 {
    line("ranks", &ranks.to_string());
    EXIT_RANKS_LOST
}

fn line(kind: &str, json: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody reads any more: the work is still worth finishing.
    let _closed = writeln!(out, "{kind} {json}").and_then(|()| out.flush());
}

/// The report in a line of a worker's output, if it is one.
pub(super) fn read_report(line: &str) -> Option<Report> {
    serde_json::from_str(line.strip_prefix("progress ")?).ok()
}

/// The number of ranks that remain in a line of a worker's output, if it is one.
pub(super) fn read_ranks(line: &str) -> Option<usize> {
    line.strip_prefix("ranks ")?.parse().ok().filter(|ranks| *ranks > 0)
}

/// Reasons that workers give; a fault's reason is one of a program's own texts, so a line can only choose among them.
const REASONS: &[&str] = &[
    "ARTIFACT_CORRUPT",
    "ARTIFACT_DAMAGED",
    "ARTIFACT_NOT_FOUND",
    "DATASET_UNUSABLE",
    "DISK_FULL",
    "FILE_ERROR",
    "INVALID_FIELD",
    "LOSS_NOT_FINITE",
    "MODEL_UNUSABLE",
    "NOTHING_SUPERVISED",
    "NOT_FINITE",
    "NOT_MEASURABLE",
    "OUT_OF_MEMORY",
    "PROGRAM_MISSING",
];

/// The fault in a line of a worker's output, if it is one.
pub(super) fn read_fault(line: &str) -> Option<Fault> {
    let read: FaultLine = serde_json::from_str(line.strip_prefix("fault ")?).ok()?;
    let reason = REASONS.iter().find(|reason| **reason == read.reason).copied().unwrap_or("WORKER_FAILED");
    Some(Fault::new(Code::from_i32(read.code), reason, read.message))
}

/// Whether the worker should finish the present step, save and leave.
#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Whether it should.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Starts to listen for SIGTERM, on a thread of its own: a worker's runtime is busy with its work.
///
/// # Errors
/// The handler cannot be installed.
pub fn install_stop() -> std::io::Result<Stop> {
    let stop = Stop(Arc::new(AtomicBool::new(false)));
    let flag = stop.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut terminate = {
        let _inside = runtime.enter();
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?
    };
    std::thread::Builder::new().name("stop".to_owned()).spawn(move || {
        runtime.block_on(terminate.recv());
        flag.0.store(true, Ordering::Relaxed);
    })?;
    Ok(stop)
}
