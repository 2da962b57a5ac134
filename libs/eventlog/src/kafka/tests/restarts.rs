//! A real broker that is killed, and away for a while, under load.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;

use super::*;

/// Events that are appended while the broker comes and goes.
const EVENTS: usize = 1000;

/// A broker of this test's own, so that it can be killed.
struct Broker {
    folder: tempfile::TempDir,
}

impl Broker {
    fn new() -> Broker {
        Broker { folder: tempfile::tempdir().unwrap() }
    }

    /// Where it will listen: known before it starts, and kept over restarts.
    fn servers(&self) -> String {
        let env = std::fs::read_to_string(self.folder.path().join("env")).unwrap();
        env.lines().find_map(|line| line.strip_prefix("TIDEMILL_TEST_KAFKA=")).unwrap().to_owned()
    }

    fn run(&self, verb: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.ci/servers/kafka");
        let status = Command::new(script).arg(verb).arg(self.folder.path()).status().unwrap();
        assert!(status.success(), "the broker: {verb}");
    }

    fn kill(&self) {
        let pid = std::fs::read_to_string(self.folder.path().join("pid")).unwrap();
        assert!(Command::new("kill").args(["-9", pid.trim()]).status().unwrap().success());
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.run("stop");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_killed_and_away_for_a_while_loses_and_doubles_nothing() {
    if Cluster::real().is_none() {
        return;
    }
    let broker = Arc::new(Broker::new());
    let of = broker.clone();
    let verb = move |verb: &'static str| {
        let of = of.clone();
        async move { blocking(move || if verb == "kill" { of.kill() } else { of.run(verb) }).await }
    };
    verb("start").await;
    let url = format!("kafka://{}", broker.servers());
    let (log, other) = (crate::connect(&url).await.unwrap(), crate::connect(&url).await.unwrap());
    let mut member = other.subscribe(&["t"], "g").await.unwrap();

    let append = async {
        for number in 0..EVENTS {
            let id = number.to_string();
            // As a relay does: the same event again until it is there.
            while log.append(vec![event(&id, &(number % 5).to_string())]).await.is_err() {}
        }
    };
    let faults = async {
        for away in [0, 15] {
            tokio::time::sleep(Duration::from_secs(1)).await;
            verb("kill").await;
            tokio::time::sleep(Duration::from_secs(away)).await;
            verb("start").await;
            let back = Instant::now();
            // Whoever was in the middle of something goes on by himself.
            while log.append(vec![Event { topic: "probe".to_owned(), ..event("1", "k") }]).await.is_err() {}
            assert!(back.elapsed() < Duration::from_secs(15), "{:?}", back.elapsed());
        }
    };
    // A delivery may come again, as always; another place in the log with the same event may not.
    let consume = async {
        let (mut places, mut numbers) = (HashSet::new(), Vec::new());
        while numbers.len() < EVENTS {
            // A broker takes its time to start where others use the machine too.
            let delivery = tokio::time::timeout(Duration::from_secs(300), member.next()).await.unwrap().unwrap();
            if places.insert((delivery.partition, delivery.offset)) {
                numbers.push(delivery.event.id.parse::<usize>().unwrap());
            }
            while let Err(Error::Unavailable { .. }) = member.commit(&delivery).await {}
        }
        numbers
    };
    let ((), (), numbers) = tokio::join!(append, faults, consume);
    for key in 0..5 {
        let of_key: Vec<usize> = numbers.iter().copied().filter(|number| number % 5 == key).collect();
        assert_eq!(of_key, (key..EVENTS).step_by(5).collect::<Vec<_>>(), "in order, and each once");
    }
}
