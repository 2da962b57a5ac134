//! `tidemill up`: starts tidemilld and waits until it serves.

use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::server::{self, Server};
use super::{Context, output};
use crate::arguments::Up;
use crate::connection::Connection;
use crate::failure::Failure;

/// A start takes seconds; replaying a long event log takes longer.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts a server, or says that one runs.
pub(super) async fn execute(context: &Context, up: &Up) -> Result<(), Failure> {
    let data_dir = up.data.path()?;
    if let Some(server) = server::running(&data_dir) {
        say(context, "already running", &server, &data_dir);
        return Ok(());
    }
    let program = up.data.program()?;
    std::fs::create_dir_all(&data_dir)
        .map_err(|error| Failure::Failed(format!("{} cannot be created: {error}", data_dir.display())))?;

    let mut command = Command::new(&program);
    command.env("TIDEMILL__PLATFORM__DATA_DIR", &data_dir).stdin(Stdio::null());
    let log = server::log_file(&data_dir);
    if up.detach {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log);
        let file = file.map_err(|error| Failure::Failed(format!("{} cannot be written: {error}", log.display())))?;
        let errors = file.try_clone().map_err(|error| Failure::Failed(error.to_string()))?;
        // A process group of its own: Ctrl-C in this terminal does not reach it.
        command.stdout(file).stderr(errors).process_group(0);
    }
    let mut child = command
        .spawn()
        .map_err(|error| Failure::Failed(format!("{} cannot be started: {error}", program.display())))?;
    let server = match ready(context, &mut child, &data_dir).await {
        Ok(server) => server,
        Err(Failure::Failed(text)) if up.detach => {
            return Err(Failure::Failed(format!("{text}\n{}", last_lines(&log))));
        }
        Err(failure) => return Err(failure),
    };
    say(context, "serving", &server, &data_dir);
    if up.detach { Ok(()) } else { stay(child).await }
}

/// Waits until the child says where it listens and its health is SERVING.
async fn ready(context: &Context, child: &mut Child, data_dir: &Path) -> Result<Server, Failure> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    while tokio::time::Instant::now() < deadline {
        let ended = child.try_wait().map_err(|error| Failure::Failed(error.to_string()))?;
        if let Some(status) = ended {
            return Err(Failure::Failed(format!("tidemilld ended before it served: {status}")));
        }
        if let Some(server) = server::running(data_dir).filter(|server| Some(server.pid) == pid)
            && let Ok(connection) = Connection::open(&server.grpc, context.global.api_key.as_deref()).await
            && connection.serving().await
        {
            return Ok(server);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    if let Some(pid) = pid {
        server::terminate(pid)?;
    }
    Err(Failure::Failed(format!("tidemilld did not serve within {} s and was stopped", PATIENCE.as_secs())))
}

fn say(context: &Context, what: &str, server: &Server, data_dir: &Path) {
    let value = serde_json::json!({"pid": server.pid, "grpc": server.grpc, "http": server.http, "dataDir": data_dir});
    if !context.output.for_people() {
        context.output.value(&value);
        return;
    }
    output::line(&format!("tidemilld is {what} (pid {})", server.pid));
    output::line(&format!("  gRPC  {}\n  HTTP  {}/v1\n  data  {}", server.grpc, server.http, data_dir.display()));
    if server.grpc != context.global.server {
        output::line(&format!("  use   export TIDEMILL_SERVER={}", server.grpc));
    }
}

/// Stays with a foreground server until it ends; a stop asked of us is passed on.
async fn stay(mut child: Child) -> Result<(), Failure> {
    let failed = |error: std::io::Error| Failure::Failed(error.to_string());
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate()).map_err(failed)?, signal(SignalKind::interrupt()).map_err(failed)?);
    loop {
        tokio::select! {
            status = child.wait() => return ended(status.map_err(failed)?),
            _ = terminate.recv() => {
                if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
                    server::terminate(pid)?;
                }
            }
            // The terminal has sent it to the child as well.
            _ = interrupt.recv() => {}
        }
    }
}

fn ended(status: ExitStatus) -> Result<(), Failure> {
    if status.success() { Ok(()) } else { Err(Failure::Failed(format!("tidemilld ended: {status}"))) }
}

fn last_lines(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    format!("the end of {}:\n{}", log.display(), lines[lines.len().saturating_sub(12)..].join("\n"))
}
