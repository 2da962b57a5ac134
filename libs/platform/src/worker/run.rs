//! The service's side: starts a worker, follows what it says, starts it again when it dies, and stops it when the job is cancelled.

use std::time::Duration;

use tidemill_chassis::Fault;
use tidemill_launcher::{Exit, Launcher, Signal, Status, Worker};
use tidemill_proto::Job;
use tonic::Code;

use super::Report;
use super::process::{self, ARGUMENTS, EXIT_RANKS_LOST, EXIT_STOPPED, WorkerArguments};
use crate::{Context, Platform};

/// How often the worker's output is read.
const LOOK: Duration = Duration::from_millis(200);
/// What a worker gets to save and leave before it is killed.
const TERMINATE_GRACE: Duration = Duration::from_secs(5);

/// What to launch.
pub struct Launch {
    /// The service whose worker it is: `training`.
    pub service: &'static str,
    /// Its arguments.
    pub arguments: WorkerArguments,
    /// Its ranks; 1 for a worker that is one process.
    pub ranks: usize,
}

/// The command that starts a worker of a service: `<program> worker <service>`.
///
/// # Errors
/// The path of this program cannot be found.
pub fn command(platform: &Platform, service: &str) -> Result<Vec<String>, Fault> {
    let program = match platform.settings().worker_program.as_str() {
        "" => std::env::current_exe()
            .map_err(|error| Fault::internal(format!("the path of this program is unknown: {error}")))?
            .display()
            .to_string(),
        program => program.to_owned(),
    };
    Ok(vec![program, "worker".to_owned(), service.to_owned()])
}

/// A worker's identity for the launcher.
pub(super) fn worker_id(service: &str, uid: &str) -> String {
    format!("{service}-{uid}")
}

/// Runs a worker to its end. A worker of the same job that runs already, started by a former process, is adopted. `on_report` gets
/// each report; `on_start` notes on the job the handle of each start and how often it was started again.
///
/// # Errors
/// What the worker said; or that it died too often without coming further; or that the process stops (transient).
pub async fn run<J: Job>(
    platform: &Platform,
    context: &Context<J>,
    launch: Launch,
    mut on_report: impl FnMut(&Report) + Send,
    on_start: impl Fn(&mut J, &str, u32) + Send + Sync,
) -> Result<(), Fault> {
    let id = worker_id(launch.service, &launch.arguments.uid);
    let arguments = serde_json::to_string(&launch.arguments).expect("arguments are plain data");
    // Idle OpenMP threads of libtorch spin by default; where a worker shares its cores with others, that stops everybody.
    let mut env = vec![(ARGUMENTS.to_owned(), arguments), ("GOMP_SPINCOUNT".to_owned(), "10000".to_owned())];
    env.extend(platform.telemetry.for_worker());
    let command = command(platform, launch.service)?;
    let mut worker = Worker { id: id.clone(), command, env, ranks: launch.ranks };
    let launcher = &*platform.launcher;
    let (mut restarts, mut fruitless, mut furthest) = (0, 0, 0);
    loop {
        launcher.start(&worker).await.map_err(fault)?;
        metrics::counter!("tidemill_worker_starts_total", "service" => launch.service).increment(1);
        if let Ok(Status::Running { handle }) = launcher.status(&id).await {
            context.update(|job| on_start(job, &handle, restarts)).await?;
        }
        let mut tail = Tail::default();
        let mut came_further = false;
        let mut wait = launcher.wait(&id);
        let exit = loop {
            tokio::select! {
                exit = &mut wait => break exit.map_err(fault)?,
                () = context.cancelled().cancelled() => return leave(platform, context, &id).await,
                () = tokio::time::sleep(LOOK) => {}
            }
            tail.read(launcher, &id, |report| {
                came_further |= report.done > furthest;
                furthest = furthest.max(report.done);
                on_report(report);
            })
            .await;
        };
        tail.read(launcher, &id, |report| {
            came_further |= report.done > furthest;
            furthest = furthest.max(report.done);
            on_report(report);
        })
        .await;
        match exit {
            Exit::Code(0) => return Ok(()),
            // A former process stopped it as it stopped itself; nothing is wrong.
            Exit::Code(EXIT_STOPPED) => worker.ranks = launch.ranks,
            Exit::Code(code) if code != EXIT_RANKS_LOST => {
                // Reaped, so that a transient fault can start it anew.
                let fault = tail.fault.take().unwrap_or_else(|| tail.died(&format!("exit code {code}")));
                if fault.is_transient() {
                    launcher.reap(&id).await.map_err(self::fault)?;
                }
                return Err(fault);
            }
            Exit::Signal(_) | Exit::Lost | Exit::Code(_) => {
                fruitless = if came_further { 1 } else { fruitless + 1 };
                restarts += 1;
                metrics::counter!("tidemill_worker_deaths_total", "service" => launch.service).increment(1);
                let how = match exit {
                    Exit::Signal(signal) => format!("signal {signal}"),
                    Exit::Code(_) => "a lost rank".to_owned(),
                    Exit::Lost => "an unknown cause".to_owned(),
                };
                // Those that remain go on. Where nobody was left to say how many they are, it is tried with all again.
                worker.ranks = tail.ranks.take().unwrap_or(launch.ranks);
                if fruitless > platform.settings().worker_restarts {
                    return Err(tail.died(&how));
                }
                tracing::warn!(
                    worker = id,
                    cause = how,
                    restarts,
                    ranks = worker.ranks,
                    last_words = tail.last_words(),
                    "worker died and is started again"
                );
                tokio::time::sleep(Duration::from_millis(50 << fruitless.min(6))).await;
            }
        }
        launcher.reap(&id).await.map_err(fault)?;
    }
}

/// Stops a worker because its job was cancelled, or the process stops.
async fn leave<J: Job>(platform: &Platform, context: &Context<J>, id: &str) -> Result<(), Fault> {
    let stopping = context.stopping().is_cancelled();
    if !stopping || platform.settings().stop_workers_on_shutdown {
        let launcher = &*platform.launcher;
        launcher.signal(id, Signal::Terminate).await.map_err(fault)?;
        if tokio::time::timeout(TERMINATE_GRACE, launcher.wait(id)).await.is_err() {
            tracing::warn!(worker = id, "worker did not leave in time and is killed");
            launcher.signal(id, Signal::Kill).await.map_err(fault)?;
        }
    }
    Err(Fault::unavailable("the work was stopped"))
}

/// Reads a worker's output from where it stopped last.
#[derive(Default)]
struct Tail {
    offset: u64,
    partial: Vec<u8>,
    fault: Option<Fault>,
    ranks: Option<usize>,
    last_lines: std::collections::VecDeque<String>,
}

impl Tail {
    async fn read(&mut self, launcher: &dyn Launcher, id: &str, mut on_report: impl FnMut(&Report)) {
        while let Ok(bytes) = launcher.log(id, self.offset).await {
            if bytes.is_empty() {
                return;
            }
            self.offset += bytes.len() as u64;
            self.partial.extend_from_slice(&bytes);
            while let Some(end) = self.partial.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.partial.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if let Some(report) = process::read_report(&line) {
                    on_report(&report);
                } else if let Some(fault) = process::read_fault(&line) {
                    self.fault = Some(fault);
                } else if let Some(ranks) = process::read_ranks(&line) {
                    self.ranks = Some(ranks);
                } else {
                    self.last_lines.push_back(line);
                    if self.last_lines.len() > 5 {
                        self.last_lines.pop_front();
                    }
                }
            }
        }
    }

    fn last_words(&self) -> String {
        self.last_lines.iter().map(String::as_str).collect::<Vec<_>>().join(" | ")
    }

    fn died(&self, how: &str) -> Fault {
        let said = self.last_words();
        let said = if said.is_empty() { String::new() } else { format!("; its last words: {said}") };
        Fault::new(Code::Internal, "WORKER_DIED", format!("the worker died of {how}{said}"))
    }
}

fn fault(error: tidemill_launcher::Error) -> Fault {
    use tidemill_launcher::Error as E;
    match error {
        E::Invalid { .. } => Fault::internal(error),
        E::DiskFull(_) => Fault::exhausted("DISK_FULL", error.to_string()),
        E::Unavailable { .. } => Fault::unavailable(error.to_string()),
    }
}
