//! Checkpoints as the artifact store has them: references `checkpoints/<job uid>/<step>`.

use tidemill_artifacts::Digest;
use tidemill_chassis::Fault;
use tidemill_platform::{Jobs, Platform, fault_of_artifacts, fault_of_resources};
use tidemill_proto::names;
use tidemill_proto::training::v1::{Checkpoint, ListCheckpointsRequest, ListCheckpointsResponse, TrainingJob};

/// The references of a job's checkpoints start with this.
pub(crate) fn prefix(uid: &str) -> String {
    format!("checkpoints/{uid}/")
}

/// The reference of the checkpoint after `step` steps: sorted by name is sorted by step.
pub(crate) fn reference(uid: &str, step: u64) -> String {
    format!("checkpoints/{uid}/{step:010}")
}

/// The step in a reference.
pub(crate) fn step_of(reference: &str) -> Option<u64> {
    names::last_id(reference).parse().ok()
}

/// Pages through the checkpoints of one job, or of all: those of the newest job first, and the latest step of each first.
pub(crate) async fn list(
    platform: &Platform,
    jobs: &Jobs<TrainingJob>,
    request: &ListCheckpointsRequest,
) -> Result<ListCheckpointsResponse, Fault> {
    let id =
        names::ids(&request.parent, "trainingJobs/-").map_err(|error| Fault::invalid("parent", error.to_string()))?;
    let owners = match id[0] {
        "-" => platform.collection::<TrainingJob>().all("").await.map_err(fault_of_resources)?,
        _ => vec![jobs.get(&request.parent).await?],
    };
    let size = match usize::try_from(request.page_size) {
        Ok(0) => 50,
        Ok(size) => size.min(1000),
        Err(_) => return Err(Fault::invalid("page_size", "is negative; use 0 for the usual size, or 1 to 1000")),
    };
    let mut all = Vec::new();
    for job in owners {
        let found = platform.artifacts.list(&prefix(&job.uid)).await.map_err(fault_of_artifacts)?;
        all.extend(found.iter().rev().filter_map(|(reference, digest)| describe(&job.name, reference, digest)));
    }
    let from = match request.page_token.as_str() {
        "" => 0,
        token => {
            let wrong = || Fault::invalid("page_token", "does not belong to this request; start without it");
            let last = hex::decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(wrong)?;
            all.iter().position(|checkpoint| checkpoint.name == last).ok_or_else(wrong)? + 1
        }
    };
    let rest = all.len() - from;
    let checkpoints: Vec<Checkpoint> = all.into_iter().skip(from).take(size).collect();
    let next_page_token = match checkpoints.last() {
        Some(last) if rest > size => hex::encode(&last.name),
        _ => String::new(),
    };
    Ok(ListCheckpointsResponse { checkpoints, next_page_token })
}

fn describe(job: &str, reference: &str, digest: &Digest) -> Option<Checkpoint> {
    let step = step_of(reference)?;
    Some(Checkpoint { name: format!("{job}/checkpoints/{step}"), step: step as i64, digest: digest.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_sort_by_step_and_give_it_back() {
        let uid = "0b5c";
        let steps = [0, 9, 10, 123_456, 9_999_999_999];
        let references: Vec<String> = steps.iter().map(|step| reference(uid, *step)).collect();
        assert!(references.is_sorted());
        assert!(references.iter().all(|reference| reference.starts_with(&prefix(uid))));
        assert_eq!(references.iter().filter_map(|r| step_of(r)).collect::<Vec<_>>(), steps);
        let described = describe("trainingJobs/a", &references[2], &Digest::of("x")).unwrap();
        assert_eq!((described.name.as_str(), described.step), ("trainingJobs/a/checkpoints/10", 10));
    }
}
