use serde_json::json;

use super::*;

fn job(annotations: serde_json::Value, conditions: &[&str]) -> Option<Job> {
    let conditions: Vec<_> = conditions.iter().map(|kind| json!({ "type": kind, "status": "True" })).collect();
    let job = json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": { "name": "a", "annotations": annotations },
        "status": { "conditions": conditions },
    });
    Some(serde_json::from_value(job).unwrap())
}

fn pod(name: &str, second: u32, phase: &str, state: serde_json::Value) -> Pod {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z") },
        "status": { "phase": phase, "containerStatuses": [
            { "name": "side", "ready": true, "restartCount": 0, "image": "", "imageID": "", "state": { "terminated": { "exitCode": 99 } } },
            { "name": "worker", "ready": true, "restartCount": 0, "image": "", "imageID": "", "state": state },
        ] },
    });
    serde_json::from_value(pod).unwrap()
}

fn ended(code: i32, reason: &str) -> serde_json::Value {
    json!({ "terminated": { "exitCode": code, "reason": reason } })
}

fn status(job: Option<Job>, pods: Vec<Pod>) -> Status {
    Standing { job, pods }.status("worker")
}

fn running(handle: &str) -> Status {
    Status::Running { handle: handle.to_owned() }
}

#[test]
fn a_worker_without_a_job_is_unknown() {
    assert_eq!(status(None, Vec::new()), Status::Unknown);
    let mut deleted = job(json!({}), &["Complete"]).unwrap();
    deleted.metadata.deletion_timestamp = pod("p", 1, "Pending", json!({})).metadata.creation_timestamp;
    assert_eq!(status(Some(deleted), Vec::new()), Status::Unknown);
}

#[test]
fn a_worker_runs_until_its_job_has_finished() {
    assert_eq!(status(job(json!({}), &[]), Vec::new()), running("pending"));
    assert_eq!(status(job(json!({}), &["Suspended"]), Vec::new()), running("pending"));
    let live = pod("p", 1, "Running", json!({ "running": {} }));
    assert_eq!(status(job(json!({}), &[]), vec![live]), running("p"));
    // The Job may be about to replace it.
    let disrupted = || pod("p", 1, "Failed", ended(143, "Error"));
    assert_eq!(status(job(json!({}), &[]), vec![disrupted()]), running("pending"));
    let next = || pod("q", 1, "Pending", json!({ "waiting": {} }));
    assert_eq!(status(job(json!({}), &[]), vec![disrupted(), next()]), running("q"));
    assert_eq!(status(job(json!({}), &[]), vec![next(), disrupted()]), running("q"));
}

#[test]
fn an_exit_is_that_of_the_workers_container_in_the_last_pod() {
    for (code, reason, exit) in [
        (0, "Completed", Exit::Code(0)),
        (75, "Error", Exit::Code(75)),
        (128, "Error", Exit::Code(128)),
        (128, "StartError", Exit::Code(127)),
        (137, "OOMKilled", Exit::Signal(9)),
        (143, "Error", Exit::Signal(15)),
    ] {
        let pods = vec![pod("p", 2, "Failed", ended(code, reason)), pod("o", 1, "Failed", ended(1, "Error"))];
        assert_eq!(status(job(json!({}), &["Failed"]), pods), Status::Exited(exit));
    }
}

#[test]
fn a_worker_without_a_pod_ended_as_we_ended_it_or_nobody_knows_how() {
    let killed = || job(json!({ ENDED_BY: "9" }), &["Failed"]);
    assert_eq!(status(killed(), Vec::new()), Status::Exited(Exit::Signal(9)));
    assert_eq!(status(job(json!({ ENDED_BY: "15" }), &["Suspended"]), Vec::new()), Status::Exited(Exit::Signal(15)));
    assert_eq!(status(job(json!({}), &["Failed"]), Vec::new()), Status::Exited(Exit::Lost));
    // It had ended by itself when we came.
    let own = pod("p", 1, "Failed", ended(3, "Error"));
    assert_eq!(status(killed(), vec![own]), Status::Exited(Exit::Code(3)));
}

#[test]
fn a_pod_that_never_ran_its_worker_is_lost_unless_it_was_told_to_finish() {
    let mut waiting = pod("p", 1, "Failed", json!({ "waiting": {} }));
    assert_eq!(status(job(json!({}), &["Failed"]), vec![waiting.clone()]), Status::Exited(Exit::Lost));
    waiting.spec.get_or_insert_default().active_deadline_seconds = Some(FINISH);
    assert_eq!(status(job(json!({}), &["Failed"]), vec![waiting]), Status::Exited(Exit::Signal(15)));
}

/// A Job of three ranks, and a pod of one of them.
fn job_of_ranks(conditions: &[&str]) -> Option<Job> {
    let mut job = job(json!({}), conditions).unwrap();
    job.spec.get_or_insert_default().completions = Some(3);
    Some(job)
}

fn rank_of(index: u32, mut pod: Pod) -> Pod {
    pod.metadata.annotations = Some([(INDEX.to_owned(), index.to_string())].into());
    pod
}

#[test]
fn a_worker_of_several_ranks_stands_as_its_first_does() {
    let live = |name: &str| pod(name, 1, "Running", json!({ "running": {} }));
    let first = || rank_of(0, live("first"));
    let others = |state: fn(&str) -> Pod| [rank_of(1, state("second")), rank_of(2, state("third"))];
    let with = |first: Option<Pod>, others: [Pod; 2]| others.into_iter().chain(first).collect::<Vec<_>>();
    assert_eq!(status(job_of_ranks(&[]), with(Some(first()), others(live))), running("first"));
    // Those that leave before the first leave it to that to say why.
    let gone = |name: &str| pod(name, 2, "Failed", ended(137, "Error"));
    assert_eq!(status(job_of_ranks(&[]), with(Some(first()), others(gone))), running("first"));
    let left = || rank_of(0, pod("first", 1, "Failed", ended(76, "Error")));
    assert_eq!(status(job_of_ranks(&[]), with(Some(left()), others(live))), Status::Exited(Exit::Code(76)));
    let done = || rank_of(0, pod("first", 1, "Succeeded", ended(0, "Completed")));
    assert_eq!(status(job_of_ranks(&["Failed"]), with(Some(done()), others(gone))), Status::Exited(Exit::Code(0)));
    // Its pod was deleted: the others end, and the Job with them.
    assert_eq!(status(job_of_ranks(&[]), with(None, others(live))), running("pending"));
    assert_eq!(status(job_of_ranks(&["Failed"]), with(None, others(gone))), Status::Exited(Exit::Lost));
}
