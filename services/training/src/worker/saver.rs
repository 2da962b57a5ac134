//! Writes checkpoints on a thread of its own, while training goes on.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

use tidemill_artifacts::Artifacts;

use super::snapshots::Snapshots;
use crate::error::{Error, Result};
use crate::learning::Checkpoint;

/// Takes checkpoints one after the other: one that comes while another is being written waits for that.
pub(crate) struct Saver {
    sender: Option<SyncSender<Checkpoint>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Saver {
    /// `snapshots` is where they go. Its store is opened anew: connections belong to the runtime that made them.
    pub(crate) fn start(snapshots: Snapshots, artifacts_url: String) -> Result<Self> {
        // No room: a hand-over ends when the writer has taken it, so that at most one copy of the state is held.
        let (sender, receiver) = sync_channel(0);
        let thread = std::thread::Builder::new()
            .name("checkpoints".to_owned())
            .spawn(move || write(snapshots, &artifacts_url, &receiver))
            .map_err(|source| Error::File { path: "checkpoints".into(), source })?;
        Ok(Self { sender: Some(sender), thread: Some(thread) })
    }

    /// Hands a checkpoint over.
    ///
    /// # Errors
    /// What an earlier one failed of.
    pub(crate) fn save(&mut self, checkpoint: Checkpoint) -> Result<()> {
        match self.sender.as_ref().map(|sender| sender.send(checkpoint)) {
            Some(Ok(())) => Ok(()),
            _ => self.finish(),
        }
    }

    /// Waits until all are stored.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.sender = None;
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::warn!(%error, "a checkpoint is not stored");
        }
    }
}

fn write(mut snapshots: Snapshots, artifacts_url: &str, receiver: &Receiver<Checkpoint>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::File { path: "checkpoints".into(), source })?;
    runtime.block_on(async {
        snapshots.artifacts = Artifacts::connect(artifacts_url).await?;
        while let Ok(checkpoint) = receiver.recv() {
            snapshots.save(&checkpoint).await?;
        }
        Ok(())
    })
}
