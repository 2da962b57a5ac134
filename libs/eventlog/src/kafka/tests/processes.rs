//! Several processes on one cluster: each log here is what a process of its own would have.

use std::collections::HashSet;
use std::io::{BufRead, Write};
use std::process::{Command, Stdio};

use super::*;

/// Tells a child of these tests where the cluster is.
const CHILD: &str = "TIDEMILL_TEST_KAFKA_CHILD";

#[tokio::test(flavor = "multi_thread")]
async fn what_another_process_appended_is_not_appended_again() {
    let Some(cluster) = Cluster::real() else { return };
    let events: Vec<Event> = (0..600).map(|index| event(&index.to_string(), "k")).collect();
    cluster.log().await.append(events[..300].to_vec()).await.unwrap();
    // The next relay does not know how far the last one came.
    let second = cluster.log().await;
    second.append(events[..400].to_vec()).await.unwrap();
    cluster.log().await.append(events[200..].to_vec()).await.unwrap();
    second.append(events[350..].to_vec()).await.unwrap();
    let mut member = second.subscribe(&["t"], "g").await.unwrap();
    let ids = until(&mut member, "599").await;
    assert_eq!(ids, (0..600).map(|index| index.to_string()).collect::<Vec<_>>());
    cluster.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_starts_again_goes_on_where_it_was() {
    let Some(cluster) = Cluster::real() else { return };
    let log = cluster.log().await;
    log.append(vec![event("1", "k"), event("2", "k"), event("3", "k")]).await.unwrap();
    let mut member = log.subscribe(&["t"], "g").await.unwrap();
    let first = next(&mut member).await;
    member.commit(&first).await.unwrap();
    assert_eq!(next(&mut member).await.event.id, "2");
    drop((log, member));
    let log = cluster.log().await;
    let mut member = log.subscribe(&["t"], "g").await.unwrap();
    for id in ["2", "3"] {
        let delivery = next(&mut member).await;
        assert_eq!((&*delivery.event.id, delivery.attempt), (id, 1));
        member.commit(&delivery).await.unwrap();
    }
    cluster.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_a_killed_process_goes_on_with_another() {
    let Some(cluster) = Cluster::real() else { return };
    let log = cluster.log().await;
    log.append(vec![event("1", "k"), event("2", "k")]).await.unwrap();
    let mut child = Child::that_holds_one(&cluster);
    child.process.kill().unwrap();
    let killed = Instant::now();
    let mut member = log.subscribe(&["t"], "g").await.unwrap();
    assert_eq!(until(&mut member, "2").await, ["1", "2"]);
    assert!(killed.elapsed() < Duration::from_secs(30), "{:?}", killed.elapsed());
    cluster.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_slept_cannot_commit_what_went_to_another() {
    let Some(cluster) = Cluster::real() else { return };
    let log = cluster.log().await;
    log.append(vec![event("1", "k"), event("2", "k"), event("3", "k")]).await.unwrap();
    let mut child = Child::that_holds_one(&cluster);
    child.signal("STOP");
    let mut member = log.subscribe(&["t"], "g").await.unwrap();
    assert_eq!(until(&mut member, "2").await, ["1", "2"]);
    child.signal("CONT");
    child.process.stdin.take().unwrap().write_all(b"commit\n").unwrap();
    child.says("of t is not held by this subscription");
    child.process.kill().unwrap();
    // Its commit has not put the group back.
    drop(member);
    let mut member = log.subscribe(&["t"], "g").await.unwrap();
    assert_eq!(until(&mut member, "3").await, ["3"]);
    cluster.remove().await;
}

/// A consumer in a process of its own: this test program, told what to do by its environment.
struct Child {
    process: std::process::Child,
    lines: std::io::Lines<std::io::BufReader<std::process::ChildStdout>>,
}

impl Child {
    fn that_holds_one(cluster: &Cluster) -> Child {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--nocapture",
                "kafka::tests::processes::a_child_holds_one_event_until_it_is_told_to_commit",
            ])
            .env(CHILD, &cluster.url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = std::io::BufReader::new(process.stdout.take().unwrap()).lines();
        let mut child = Child { process, lines };
        child.says("holds 1");
        child
    }

    fn says(&mut self, text: &str) {
        assert!(self.lines.any(|line| line.unwrap().contains(text)), "the child ended without saying {text}");
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.process.id().to_string()]).status();
        assert!(status.unwrap().success());
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_holds_one_event_until_it_is_told_to_commit() {
    let Ok(url) = std::env::var(CHILD) else { return };
    let log = crate::connect(&url).await.unwrap();
    let mut member = log.subscribe(&["t"], "g").await.unwrap();
    let delivery = next(&mut member).await;
    println!("\nholds {}", delivery.event.id);
    std::io::stdin().read_line(&mut String::new()).unwrap();
    println!("\n{}", member.commit(&delivery).await.unwrap_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_moves_waits_for_the_event_that_is_being_handled() {
    let Some(cluster) = Cluster::real() else { return };
    let (log, other) = (cluster.log().await, cluster.log().await);
    let events = (0..64).map(|index| event(&index.to_string(), &index.to_string())).collect();
    log.append(events).await.unwrap();
    let mut one = log.subscribe(&["t"], "g").await.unwrap();
    let held = next(&mut one).await;
    // The second takes half of the partitions, but none before `held` is committed.
    let (two, ()) = tokio::join!(other.subscribe(&["t"], "g"), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        one.commit(&held).await.unwrap();
    });
    let mut two = two.unwrap();
    let mut seen = vec![held.event.id];
    while seen.len() < 64 {
        let (member, delivery) = tokio::select! {
            delivery = next(&mut one) => (&mut one, delivery),
            delivery = next(&mut two) => (&mut two, delivery),
        };
        member.commit(&delivery).await.unwrap();
        assert!(!seen.contains(&delivery.event.id), "{} twice", delivery.event.id);
        seen.push(delivery.event.id);
    }
    cluster.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_partition_that_goes_and_comes_back_is_read_to_its_end() {
    let Some(cluster) = Cluster::real() else { return };
    let (log, other) = (cluster.log().await, cluster.log().await);
    // More than a member takes in advance, of every partition.
    let events: Vec<Event> = (0..4000).map(|index| event(&index.to_string(), &(index % 100).to_string())).collect();
    log.append(events).await.unwrap();
    let mut one = log.subscribe(&["t"], "g").await.unwrap();
    let mut ids = until(&mut one, "200").await.into_iter().collect::<HashSet<_>>();
    let two = other.subscribe(&["t"], "g").await.unwrap();
    drop(two);
    while ids.len() < 4000 {
        let delivery = next(&mut one).await;
        one.commit(&delivery).await.unwrap();
        ids.insert(delivery.event.id);
    }
    cluster.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_member_does_not_hold_it_cannot_commit() {
    let Some(cluster) = Cluster::real() else { return };
    let log = cluster.log().await;
    log.append(vec![event("1", "k")]).await.unwrap();
    let mut one = log.subscribe(&["t"], "g").await.unwrap();
    let delivery = next(&mut one).await;
    one.release(&delivery, Duration::ZERO).await.unwrap();
    let error = one.commit(&delivery).await.unwrap_err();
    assert!(matches!(error, Error::NotHeld { offset: 0, .. }), "{error}");
    let again = next(&mut one).await;
    drop(one);
    let mut two = log.subscribe(&["t"], "g").await.unwrap();
    let delivery = next(&mut two).await;
    assert_eq!((&*delivery.event.id, delivery.attempt), ("1", again.attempt + 1));
    two.commit(&delivery).await.unwrap();
    cluster.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lag_of_a_group_is_what_it_has_not_committed() {
    let Some(cluster) = Cluster::real() else { return };
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().unwrap();
    let log = cluster.log().await;
    let events = (0..30).map(|index| event(&index.to_string(), &index.to_string())).collect();
    log.append(events).await.unwrap();
    let mut member = log.subscribe(&["t"], "lagging").await.unwrap();
    let lag = async |events: &str| {
        let line = format!("tidemill_consumer_lag{{topic=\"t\",group=\"lagging\"}} {events}\n");
        let deadline = Instant::now() + Duration::from_secs(30);
        while !recorder.render().contains(&line) {
            assert!(Instant::now() < deadline, "no {line} in {}", recorder.render());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    lag("30").await;
    for _ in 0..20 {
        let delivery = next(&mut member).await;
        member.commit(&delivery).await.unwrap();
    }
    lag("10").await;
    assert!(recorder.render().contains("tidemill_eventlog_append_duration_seconds"));
    cluster.remove().await;
}
