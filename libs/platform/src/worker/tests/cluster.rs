//! A worker as a Job of a real cluster, with the credentials of `KUBECONFIG`: `tests/cluster/run` gives those of training's own service
//! account, and the chart's template.

use tidemill_launcher::{Exit, Signal, Status};

use super::*;

/// The launcher's URL.
const LAUNCHER: &str = "TIDEMILL_TEST_LAUNCHER";

const SCRIPT: &str = r#"echo 'progress {"phase":"training","done":1,"total":2}'
trap 'echo saved; exit 75' TERM
while :; do sleep 0.05; done"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_in_a_cluster_is_followed_started_again_and_cancelled() {
    let Ok(url) = std::env::var(LAUNCHER) else {
        println!("skipped: workers in a cluster: {LAUNCHER} is not set; run tests/cluster/run");
        return;
    };
    // Beside the test's own program: pods have a /tmp of their own, and are other users.
    let folder = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let bench = Bench::start_with(folder, &url, SCRIPT).await;
    let launcher = bench.platform.launcher.clone();
    let job = bench.jobs.create(TrainingJob::default(), "", "", "").await.unwrap();
    let id = run::worker_id("training", &job.uid);

    until("the first report", || !bench.reports.lock().unwrap().is_empty()).await;
    launcher.signal(&id, Signal::Kill).await.unwrap();
    until("the second start", || bench.starts.lock().unwrap().last() == Some(&1)).await;
    until("a report of the second worker", || bench.reports.lock().unwrap().len() > 1).await;

    bench.jobs.cancel(&job.name).await.unwrap();
    let exit = tokio::time::timeout(Duration::from_secs(60), launcher.wait(&id)).await.unwrap();
    assert_eq!(exit.unwrap(), Exit::Code(EXIT_STOPPED));
    let said = String::from_utf8(launcher.log(&id, 0).await.unwrap()).unwrap();
    assert!(said.ends_with("saved\n"), "{said}");
    launcher.reap(&id).await.unwrap();
    assert_eq!(launcher.status(&id).await.unwrap(), Status::Unknown);
}

/// As rank 0 of a training job does that has lost another; then a rank alone.
const LOSING: &str = r#"case $WORLD_SIZE in 2)
  [ $JOB_COMPLETION_INDEX = 0 ] || exec sleep 1000
  grep -q " ${MASTER_ADDR:?}\$" /etc/hosts || exit 1
  echo "ranks 1"; exit 76;; esac
echo 'progress {"phase":"training","done":1,"total":1}'"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_has_lost_a_rank_is_started_again_with_those_that_remain() {
    let Ok(url) = std::env::var(LAUNCHER) else {
        println!("skipped: ranks in a cluster: {LAUNCHER} is not set; run tests/cluster/run");
        return;
    };
    let folder = tempfile::tempdir_in(std::env::current_exe().unwrap().parent().unwrap()).unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let bench = Bench::start_ranks(2, folder, &url, LOSING).await;
    let job = bench.run().await;
    assert_eq!(job.state(), State::Succeeded, "{:?}", job.error);
    assert_eq!(*bench.starts.lock().unwrap(), [0, 1]);
    bench.platform.launcher.reap(&run::worker_id("training", &job.uid)).await.unwrap();
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    let reached = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), reached).await.unwrap_or_else(|_| panic!("{what} does not come"));
}
