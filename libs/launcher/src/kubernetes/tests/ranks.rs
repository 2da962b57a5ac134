//! Workers of several ranks: a pod each, of which the first counts.

use super::*;

fn of(ranks: usize, text: &str) -> Worker {
    Worker { ranks, ..script("a", text) }
}

impl Here {
    async fn all_pods(&self) -> Vec<Pod> {
        self.pods().list(&ListParams::default()).await.unwrap().items
    }

    /// Of each pod, how it ended, if it did.
    async fn exits(&self) -> Vec<Option<i32>> {
        let code = |pod: &Pod| standing::terminated(pod, "worker").map(|end| end.exit_code);
        let mut codes: Vec<_> = self.all_pods().await.iter().map(code).collect();
        codes.sort_unstable();
        codes
    }

    async fn until_exits(&self, reached: impl Fn(&[Option<i32>]) -> bool) {
        let reached = async {
            while !reached(&self.exits().await) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap();
    }

    async fn until_running(&self, count: usize) {
        let runs = |pod: &Pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running");
        let reached = async {
            while self.all_pods().await.iter().filter(|pod| runs(pod)).count() < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ranks_are_pods_that_know_their_place_and_finish_together() {
    let Some(here) = Here::new().await else { return };
    let launcher = here.launcher(TEMPLATE).await;
    let tell =
        "trap \"exit 7$JOB_COMPLETION_INDEX\" TERM; echo \"$JOB_COMPLETION_INDEX of $WORLD_SIZE at $MASTER_ADDR\"
        while :; do sleep 0.02; done";
    launcher.start(&of(3, tell)).await.unwrap();
    let name = template::job_name("a");
    // The output of the first alone.
    until_output(&launcher, "a", &format!("0 of 3 at {name}-0.ranks\n")).await;
    assert!(handle(&launcher, "a").await.starts_with(&format!("{name}-0-")));
    here.until_running(3).await;
    launcher.signal("a", Signal::Terminate).await.unwrap();
    assert_eq!(launcher.wait("a").await.unwrap(), Exit::Code(70));
    // Each has left in its own way, and is there to tell.
    here.until_exits(|codes| codes == [Some(70), Some(71), Some(72)]).await;
    launcher.reap("a").await.unwrap();
    assert_eq!(here.all_pods().await, []);
    here.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_rank_is_for_the_first_to_deal_with_whose_end_is_that_of_all() {
    let Some(here) = Here::new().await else { return };
    let launcher = here.launcher(TEMPLATE).await;
    let lose = "case $JOB_COMPLETION_INDEX in 0) sleep 5; exit 76;; 1) kill -9 $$;; *) exec sleep 1000;; esac";
    launcher.start(&of(3, lose)).await.unwrap();
    here.until_exits(|codes| codes.contains(&Some(137))).await;
    assert!(matches!(launcher.status("a").await.unwrap(), Status::Running { .. }));
    assert_eq!(launcher.wait("a").await.unwrap(), Exit::Code(76));
    // The one that stayed was given ten seconds.
    here.until_exits(|codes| codes == [Some(76), Some(137)]).await;
    launcher.reap("a").await.unwrap();

    launcher.start(&of(2, "exec sleep 1000")).await.unwrap();
    here.until_running(2).await;
    launcher.signal("a", Signal::Kill).await.unwrap();
    assert_eq!(launcher.wait("a").await.unwrap(), Exit::Signal(9));
    assert_eq!(here.all_pods().await, []);
    here.remove().await;
}
