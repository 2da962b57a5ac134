//! Ways to end a worker, each so that its exit is still seen.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;

use super::standing::{self, ENDED_BY, FINISH, Standing};
use super::{KubernetesLauncher, template};
use crate::{Error, Result, Status};

/// How long the other ranks may outlive the first.
const STRAGGLE: Duration = Duration::from_secs(10);
/// How often a pod may change under our hands before we give up; it changes a handful of times in all its life.
const TRIES: usize = 20;

impl KubernetesLauncher {
    /// Has kubelets end the pods gracefully, as at their deadline: unlike a deletion, that keeps a pod, its exit code and its output.
    pub(super) async fn terminate(&self, id: &str) -> Result<()> {
        let standing = self.look(id).await?;
        if !self.runs(id, &standing) {
            return Ok(());
        }
        let complete = standing.live().next().is_some() && standing.pods.len() >= standing.ranks();
        if !complete || !standing.live().all(standing::has_begun) {
            return self.end(id, 15).await;
        }
        let deadline = json!({ "spec": { "activeDeadlineSeconds": FINISH } });
        for name in standing.live().filter_map(|pod| pod.metadata.name.as_deref()) {
            let patched = self.pods.patch(name, &PatchParams::default(), &Patch::Merge(&deadline)).await;
            // A pod that has gone meanwhile has ended.
            self.unless_gone(patched.map(drop))?;
        }
        Ok(())
    }

    /// Deletes what still runs of a worker whose rank 0 has ended, after a while: a rank on a node that is lost, or one that waits for room.
    pub(super) async fn end_stragglers(&self, id: &str) -> Result<()> {
        let left = self.until(id, |standing| standing.live().next().is_none().then_some(()));
        match tokio::time::timeout(STRAGGLE, left).await {
            Ok(left) => left,
            Err(_) => self.delete_live_pods(id, self.look(id).await?).await,
        }
    }

    /// Ends the Job, then its pod without grace. A pod that has ended by itself is left, for it tells how.
    pub(super) async fn kill(&self, id: &str) -> Result<()> {
        let standing = self.look(id).await?;
        if !self.runs(id, &standing) {
            return Ok(());
        }
        self.end(id, 9).await?;
        self.delete_live_pods(id, standing).await
    }

    /// Deletes the Job, a pod that still runs without grace. The Job is there until its pods are gone, so that whoever uses the id
    /// again cannot overlook one: the propagation is in the foreground for that.
    pub(super) async fn delete(&self, id: &str) -> Result<()> {
        let deleted = self.jobs.delete(&template::job_name(id), &DeleteParams::foreground()).await;
        self.unless_gone(deleted.map(drop))?;
        self.delete_live_pods(id, self.look(id).await?).await
    }

    fn runs(&self, id: &str, standing: &Standing) -> bool {
        matches!(self.status_of(id, standing), Status::Running { .. })
    }

    /// Lets the Job end at once and make no pod any more, also when a queue releases it later; and notes by which signal, since no
    /// pod may be left to tell.
    async fn end(&self, id: &str, signal: i32) -> Result<()> {
        let patch = json!({
            "metadata": { "annotations": { ENDED_BY: signal.to_string() } },
            "spec": { "parallelism": 0, "activeDeadlineSeconds": 1 },
        });
        let name = template::job_name(id);
        let patched = self.jobs.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await;
        self.unless_gone(patched.map(drop))
    }

    async fn delete_live_pods(&self, id: &str, mut standing: Standing) -> Result<()> {
        for _ in 0..TRIES {
            let mut changed = false;
            for pod in standing.live().filter(|pod| !is_dying(pod)) {
                let name = pod.metadata.name.as_deref().unwrap_or_default();
                // Only as we saw it: it may have ended since.
                let preconditions = Preconditions {
                    uid: pod.metadata.uid.clone(),
                    resource_version: pod.metadata.resource_version.clone(),
                };
                let now = DeleteParams::default().grace_period(0).preconditions(preconditions);
                match self.pods.delete(name, &now).await {
                    Err(kube::Error::Api(status)) if status.is_conflict() => changed = true,
                    deleted => self.unless_gone(deleted.map(drop))?,
                }
            }
            if !changed {
                return Ok(());
            }
            standing = self.look(id).await?;
        }
        Err(Error::Unavailable {
            url: self.url.clone(),
            reason: format!("the pod of worker {id} changes all the time"),
        })
    }

    /// Treats what is no more as done.
    fn unless_gone(&self, done: std::result::Result<(), kube::Error>) -> Result<()> {
        match done {
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
            done => done.map_err(|error| self.failed(&error)),
        }
    }
}

/// Whether its node was told to end it at once.
fn is_dying(pod: &Pod) -> bool {
    pod.metadata.deletion_grace_period_seconds == Some(0)
}
