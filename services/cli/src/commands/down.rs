//! `tidemill down`: stops the server of a data directory.

use std::time::Duration;

use super::Context;
use super::server;
use crate::arguments::Down;
use crate::failure::Failure;

/// A server finishes what it has begun within its grace of 8 s.
const PATIENCE: Duration = Duration::from_secs(20);

/// Asks it to stop and waits until it has.
pub(super) async fn execute(context: &Context, down: &Down) -> Result<(), Failure> {
    let data_dir = down.data.path()?;
    let Some(server) = server::running(&data_dir) else {
        context.output.note(&format!("no server runs on {}", data_dir.display()));
        return Ok(());
    };
    server.stop()?;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while server.alive() {
        if tokio::time::Instant::now() > deadline {
            let text =
                format!("process {} still runs after {} s; its log has the reason", server.pid, PATIENCE.as_secs());
            return Err(Failure::Failed(text));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    context.output.note(&format!("stopped tidemilld (pid {})", server.pid));
    Ok(())
}
