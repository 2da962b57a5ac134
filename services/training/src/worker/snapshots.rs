//! Checkpoints in the artifact store: saved, found again after a death, and thinned.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use tidemill_artifacts::{Artifacts, Digest, Error as Artifact};

use crate::checkpoints::{prefix, reference, step_of};
use crate::error::{Error, Result};
use crate::learning::{Checkpoint, Trainer};

/// The checkpoints of one run.
#[derive(Clone)]
pub(crate) struct Snapshots {
    pub(crate) artifacts: Artifacts,
    /// The job's uid.
    pub(crate) uid: String,
    /// For folders that are being written or read.
    pub(crate) scratch: PathBuf,
    /// What the run reads: a checkpoint's parents.
    pub(crate) parents: Vec<Digest>,
    /// Checkpoints kept besides the last.
    pub(crate) keep: usize,
}

impl Snapshots {
    /// Empties the scratch folder: a former worker may have died over it.
    pub(crate) fn prepare(&self) -> Result<()> {
        clear(&self.scratch)?;
        std::fs::create_dir_all(&self.scratch).map_err(Error::file(&self.scratch))
    }

    /// Stores a checkpoint. The reference comes last: whoever sees it sees all of it.
    pub(crate) async fn save(&self, checkpoint: &Checkpoint) -> Result<()> {
        let step = checkpoint.step();
        let folder = self.scratch.join("saved");
        clear(&folder)?;
        std::fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
        checkpoint.write(&folder)?;
        let annotations = BTreeMap::from([("step".to_owned(), step.to_string())]);
        let digest = self.artifacts.take_directory(&folder, "checkpoint", self.parents.clone(), annotations).await?;
        self.artifacts.claim(&reference(&self.uid, step), &digest).await?;
        clear(&folder)?;
        tracing::info!(step, checkpoint = %digest, "checkpoint stored");
        self.thin().await
    }

    /// Continues from the newest checkpoint that can be read, of those up to a step. `fresh` makes a run before its first step.
    pub(crate) async fn resume(&self, up_to: u64, fresh: impl Fn() -> Result<Trainer>) -> Result<Trainer> {
        let mut found = self.artifacts.list(&prefix(&self.uid)).await?;
        found.retain(|(name, _)| step_of(name).is_some_and(|step| step <= up_to));
        while let Some((name, digest)) = found.pop() {
            let folder = self.scratch.join("restored");
            let fetched = self.artifacts.fetch_directory(&digest, &folder).await;
            let cause = match fetched {
                Ok(_) => {
                    let mut trainer = fresh()?;
                    let resumed = trainer.resume(&folder);
                    clear(&folder)?;
                    match resumed {
                        Ok(()) => {
                            tracing::info!(step = trainer.steps_done(), checkpoint = %digest, "resumed from a checkpoint");
                            return Ok(trainer);
                        }
                        Err(error) => error.to_string(),
                    }
                }
                Err(error @ (Artifact::Mismatch { .. } | Artifact::Corrupt { .. } | Artifact::NotFound(_))) => {
                    // Out of the way, so that the run can store the same bytes again, whole.
                    if let Artifact::Mismatch { digest, .. } = &error {
                        self.artifacts.delete_blob(digest).await?;
                    }
                    self.artifacts.release(&name).await?;
                    error.to_string()
                }
                Err(error) => return Err(error.into()),
            };
            tracing::warn!(checkpoint = %digest, step = step_of(&name), cause, "a checkpoint is skipped for the one before it");
        }
        fresh()
    }

    /// Forgets all but the last few checkpoints, and deletes their files unless another checkpoint has the same.
    async fn thin(&self) -> Result<()> {
        let mut own = self.artifacts.list(&prefix(&self.uid)).await?;
        let old: Vec<(String, Digest)> = own.drain(..own.len().saturating_sub(self.keep + 1)).collect();
        if old.is_empty() {
            return Ok(());
        }
        for (name, _) in &old {
            self.artifacts.release(name).await?;
        }
        let mut needed = BTreeSet::new();
        for (_, digest) in self.artifacts.list("checkpoints/").await? {
            needed.extend(self.files(&digest).await);
        }
        for parent in &self.parents {
            needed.extend(self.files(parent).await);
        }
        for (_, digest) in &old {
            // The manifest first: nobody shall see a checkpoint that lacks files.
            for file in self.files(digest).await.into_iter().filter(|file| !needed.contains(file)) {
                self.artifacts.delete_blob(&file).await?;
            }
        }
        Ok(())
    }

    /// An artifact's manifest and its files; nothing of one that cannot be read.
    async fn files(&self, digest: &Digest) -> Vec<Digest> {
        match self.artifacts.manifest(digest).await {
            Ok(manifest) => std::iter::once(*digest).chain(manifest.entries.iter().map(|entry| entry.digest)).collect(),
            Err(_) => Vec::new(),
        }
    }
}

fn clear(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file(folder)(error)),
        _ => Ok(()),
    }
}
