//! How a worker stands, read from its Job and the pods of it.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, Pod};

use crate::{Exit, Status};

/// Annotation of a Job that we ended without a pod that could tell how: the signal's number.
pub(super) const ENDED_BY: &str = "tidemill/ended-by";
/// A pod's `activeDeadlineSeconds` once its worker was asked to finish. The kubelet ends such a pod gracefully, and keeps it with
/// its exit code and its output, which a deletion would not.
pub(super) const FINISH: i64 = 1;

/// Annotation by which the cluster numbers the pods of a Job: their rank.
const INDEX: &str = "batch.kubernetes.io/job-completion-index";

/// What the API knows of a worker.
#[derive(Debug, Default)]
pub(super) struct Standing {
    pub(super) job: Option<Job>,
    /// One of each rank; more where a pod was disrupted and replaced.
    pub(super) pods: Vec<Pod>,
}

impl Standing {
    pub(super) fn status(&self, container: &str) -> Status {
        // A Job that is being deleted is forgotten already; whoever starts its id again waits until it is gone.
        let Some(job) = self.job.as_ref().filter(|job| job.metadata.deletion_timestamp.is_none()) else {
            return Status::Unknown;
        };
        let finished = has_condition(job, "Complete") || has_condition(job, "Failed");
        // Of several ranks none is replaced, and the others end with the first. Of one, only a finished Job makes no further pod, or one
        // that was ended while it was suspended.
        let led = self.ranks() > 1 && self.pod().is_some_and(|pod| !is_live(pod));
        if finished || led || ended_by(job).is_some() && has_condition(job, "Suspended") {
            return Status::Exited(self.exit(job, container));
        }
        let handle = self.pod().filter(|pod| is_live(pod)).and_then(|pod| pod.metadata.name.clone());
        Status::Running { handle: handle.unwrap_or_else(|| "pending".to_owned()) }
    }

    /// The present pod of rank 0, or its last.
    pub(super) fn pod(&self) -> Option<&Pod> {
        let first = self.pods.iter().filter(|pod| rank(pod) == 0);
        first.max_by_key(|pod| (is_live(pod), pod.metadata.creation_timestamp.as_ref().map(|time| time.0)))
    }

    /// How many ranks it has.
    pub(super) fn ranks(&self) -> usize {
        let spec = self.job.as_ref().and_then(|job| job.spec.as_ref());
        spec.and_then(|spec| spec.completions).and_then(|ranks| ranks.try_into().ok()).unwrap_or(1)
    }

    /// Pods of which something may still run.
    pub(super) fn live(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().filter(|pod| is_live(pod))
    }

    /// Whether it waits for a queue to release it.
    pub(super) fn is_queued(&self) -> bool {
        self.job.as_ref().and_then(|job| job.spec.as_ref()).is_some_and(|spec| spec.suspend == Some(true))
    }

    fn exit(&self, job: &Job, container: &str) -> Exit {
        let Some(pod) = self.pod() else { return ended_by(job).map_or(Exit::Lost, Exit::Signal) };
        if let Some(terminated) = terminated(pod, container) {
            return match terminated.exit_code {
                _ if could_not_start(terminated) => Exit::Code(127),
                code if code > 128 => Exit::Signal(code - 128),
                code => Exit::Code(code),
            };
        }
        let finishing = pod.spec.as_ref().is_some_and(|spec| spec.active_deadline_seconds == Some(FINISH));
        match ended_by(job) {
            Some(signal) => Exit::Signal(signal),
            // Told to finish before it had begun.
            None if finishing => Exit::Signal(15),
            None => Exit::Lost,
        }
    }
}

/// How the worker's container ended, if it did.
pub(super) fn terminated<'pod>(pod: &'pod Pod, container: &str) -> Option<&'pod ContainerStateTerminated> {
    let statuses = pod.status.as_ref()?.container_statuses.as_deref()?;
    let status = statuses.iter().find(|status| status.name == container)?;
    status.state.as_ref()?.terminated.as_ref()
}

/// Whether the program could not even be started; container runtimes give different exit codes for that.
pub(super) fn could_not_start(terminated: &ContainerStateTerminated) -> bool {
    matches!(terminated.reason.as_deref(), Some("StartError" | "ContainerCannotRun"))
}

fn rank(pod: &Pod) -> usize {
    let index = pod.metadata.annotations.as_ref().and_then(|all| all.get(INDEX));
    index.and_then(|index| index.parse().ok()).unwrap_or_default()
}

/// Whether something of it may still run.
fn is_live(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

/// Whether a node has taken it.
pub(super) fn has_begun(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.start_time.is_some())
}

fn has_condition(job: &Job, kind: &str) -> bool {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == kind && condition.status == "True")
}

fn ended_by(job: &Job) -> Option<i32> {
    job.metadata.annotations.as_ref()?.get(ENDED_BY)?.parse().ok()
}

#[cfg(test)]
mod tests;
