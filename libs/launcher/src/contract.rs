//! The promises of a launcher, one function each; every adapter is held to them. Each takes a launcher without workers, whose workers
//! find a POSIX `sh`.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use crate::{Error, Exit, Launcher, Signal, Status, Worker};

/// How long anything here may take at most.
const PATIENCE: Duration = Duration::from_secs(60);

/// Starting an id again, while it runs or after it has ended, changes nothing; many at once give one worker.
pub async fn starting_an_id_twice_gives_one_worker(launcher: &Arc<dyn Launcher>) {
    let worker = script("a", "echo started; read line </dev/null; exec sleep 1000");
    let mut starts = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (launcher, worker) = (launcher.clone(), worker.clone());
        starts.spawn(async move { launcher.start(&worker).await.expect("start") });
    }
    starts.join_all().await;
    let handle = running(launcher, "a").await;
    launcher.start(&worker).await.expect("start again");
    assert_eq!(running(launcher, "a").await, handle);
    until_output(launcher, "a", "started\n").await;
    launcher.signal("a", Signal::Kill).await.expect("signal");
    assert_eq!(wait(launcher, "a").await, Exit::Signal(9));
    launcher.start(&worker).await.expect("start after its end");
    assert_eq!(status(launcher, "a").await, Status::Exited(Exit::Signal(9)));
    assert_eq!(output(launcher, "a").await, "started\n");
}

/// The exit code is seen, by who waits and by who asks later, as often as they like.
pub async fn an_exit_code_is_seen(launcher: &Arc<dyn Launcher>) {
    for (id, code) in [("zero", 0), ("one", 1), ("sixty-four", 64), ("last", 128)] {
        launcher.start(&script(id, &format!("exit {code}"))).await.expect("start");
        assert_eq!(wait(launcher, id).await, Exit::Code(code));
        assert_eq!(wait(launcher, id).await, Exit::Code(code));
        assert_eq!(status(launcher, id).await, Status::Exited(Exit::Code(code)));
    }
}

/// A program that does not exist ends its worker with 127, and the output says so.
pub async fn a_missing_program_is_seen(launcher: &Arc<dyn Launcher>) {
    let command = vec!["/no/such/program".to_owned()];
    let worker = Worker { id: "a".to_owned(), command, env: Vec::new(), ranks: 1 };
    launcher.start(&worker).await.expect("start");
    assert_eq!(wait(launcher, "a").await, Exit::Code(127));
    assert!(output(launcher, "a").await.contains("/no/such/program"));
}

/// A worker that dies by a signal, its own or another's, is seen as that.
pub async fn a_killed_worker_is_seen(launcher: &Arc<dyn Launcher>) {
    launcher.start(&script("a", "kill -SEGV $$")).await.expect("start");
    assert_eq!(wait(launcher, "a").await, Exit::Signal(11));
    launcher.start(&script("b", "exec sleep 1000")).await.expect("start");
    launcher.signal("b", Signal::Kill).await.expect("signal");
    assert_eq!(wait(launcher, "b").await, Exit::Signal(9));
}

/// Terminate lets a worker finish in its own way; one that has no way of its own dies of it.
pub async fn a_terminated_worker_finishes(launcher: &Arc<dyn Launcher>) {
    let finishing = "trap 'echo saved; exit 7' TERM; echo ready; while :; do sleep 0.02; done";
    launcher.start(&script("a", finishing)).await.expect("start");
    until_output(launcher, "a", "ready\n").await;
    launcher.signal("a", Signal::Terminate).await.expect("signal");
    assert_eq!(wait(launcher, "a").await, Exit::Code(7));
    assert_eq!(output(launcher, "a").await, "ready\nsaved\n");
    launcher.start(&script("b", "echo ready; exec sleep 1000")).await.expect("start");
    until_output(launcher, "b", "ready\n").await;
    launcher.signal("b", Signal::Terminate).await.expect("signal");
    assert_eq!(wait(launcher, "b").await, Exit::Signal(15));
}

/// A signal to a worker that has ended, or never was, changes nothing.
pub async fn a_signal_to_nobody_changes_nothing(launcher: &Arc<dyn Launcher>) {
    launcher.signal("never", Signal::Kill).await.expect("signal");
    assert_eq!(status(launcher, "never").await, Status::Unknown);
    launcher.start(&script("a", "exit 3")).await.expect("start");
    wait(launcher, "a").await;
    launcher.signal("a", Signal::Kill).await.expect("signal");
    assert_eq!(status(launcher, "a").await, Status::Exited(Exit::Code(3)));
}

/// Output of both kinds is kept, readable while the worker runs and from any offset, a MiB at a time.
pub async fn output_is_kept(launcher: &Arc<dyn Launcher>) {
    launcher.start(&script("a", "echo out; sleep 0.5; echo err >&2; exec sleep 1000")).await.expect("start");
    until_output(launcher, "a", "out\nerr\n").await;
    assert_eq!(launcher.log("a", 4).await.expect("log"), b"err\n");
    assert_eq!(launcher.log("a", 8).await.expect("log"), b"");
    assert_eq!(launcher.log("a", 1000).await.expect("log"), b"");
    assert_eq!(launcher.log("never", 0).await.expect("log"), b"");
    launcher.signal("a", Signal::Kill).await.expect("signal");
    launcher.start(&script("b", "head -c 1500000 /dev/zero")).await.expect("start");
    wait(launcher, "b").await;
    assert_eq!(launcher.log("b", 0).await.expect("log").len(), 1 << 20);
    assert_eq!(launcher.log("b", 1 << 20).await.expect("log").len(), 1_500_000 - (1 << 20));
}

/// Lines of both kinds stand in the order in which they were written, however close. Not every launcher promises that: a container
/// runtime reads the two through a pipe each.
pub async fn both_outputs_keep_their_order(launcher: &Arc<dyn Launcher>) {
    launcher.start(&script("a", "for n in 1 2 3 4 5; do echo out; echo err >&2; done")).await.expect("start");
    wait(launcher, "a").await;
    assert_eq!(output(launcher, "a").await, "out\nerr\n".repeat(5));
}

/// A worker gets its arguments and environment exactly, on top of its parent's, and nothing to read.
pub async fn a_worker_gets_its_arguments_and_environment(launcher: &Arc<dyn Launcher>) {
    let hostile = "a 'b' \"c\" $(d) `e` \\ *\nnext";
    let print = r#"cat; printf '%s|%s|%s|%s' "$#" "$1" "$TEST_VALUE" "${PATH:+path}""#;
    let mut worker = script("a", print);
    worker.command.extend(["name".to_owned(), hostile.to_owned(), String::new()]);
    worker.env.push(("TEST_VALUE".to_owned(), hostile.to_owned()));
    launcher.start(&worker).await.expect("start");
    assert_eq!(wait(launcher, "a").await, Exit::Code(0));
    assert_eq!(output(launcher, "a").await, format!("2|{hostile}|{hostile}|path"));
}

/// A reaped worker is forgotten with its output; a running one is killed; the id may be used again.
pub async fn a_reaped_worker_is_forgotten(launcher: &Arc<dyn Launcher>) {
    launcher.reap("never").await.expect("reap");
    launcher.start(&script("a", "echo first; exec sleep 1000")).await.expect("start");
    until_output(launcher, "a", "first\n").await;
    launcher.reap("a").await.expect("reap");
    assert_eq!(status(launcher, "a").await, Status::Unknown);
    assert_eq!(output(launcher, "a").await, "");
    launcher.start(&script("a", "echo second")).await.expect("start again");
    assert_eq!(wait(launcher, "a").await, Exit::Code(0));
    assert_eq!(output(launcher, "a").await, "second\n");
    launcher.reap("a").await.expect("reap again");
    assert_eq!(status(launcher, "a").await, Status::Unknown);
}

/// A wait that is given up does not disturb the worker; several may wait for one.
pub async fn many_may_wait(launcher: &Arc<dyn Launcher>) {
    launcher.start(&script("a", "exec sleep 1000")).await.expect("start");
    assert!(timeout(Duration::from_millis(50), launcher.wait("a")).await.is_err());
    let waits = async { tokio::join!(wait(launcher, "a"), wait(launcher, "a")) };
    let (exits, sent) = tokio::join!(waits, launcher.signal("a", Signal::Kill));
    sent.expect("signal");
    assert_eq!(exits, (Exit::Signal(9), Exit::Signal(9)));
}

/// Ids that could leave their place, empty commands and strange variables are refused by name.
pub async fn a_strange_worker_is_refused(launcher: &Arc<dyn Launcher>) {
    let strange = |id: &str, command: &[&str], env: &str| Worker {
        id: id.to_owned(),
        command: command.iter().map(|part| (*part).to_owned()).collect(),
        env: vec![(env.to_owned(), String::new())],
        ranks: 1,
    };
    let long = "a".repeat(101);
    for id in ["", ".", "..", "a/b", "../a", "a b", "ä", &long] {
        let worker = strange(id, &["true"], "A");
        assert!(matches!(launcher.start(&worker).await, Err(Error::Invalid { .. })), "{id:?}");
        assert!(matches!(launcher.status(id).await, Err(Error::Invalid { .. })), "{id:?}");
        assert!(matches!(launcher.reap(id).await, Err(Error::Invalid { .. })), "{id:?}");
    }
    for worker in [
        strange("a", &[], "A"),
        strange("a", &[""], "A"),
        strange("a", &["true"], "A-B"),
        strange("a", &["true"], "1A"),
        Worker { ranks: 0, ..strange("a", &["true"], "A") },
    ] {
        match launcher.start(&worker).await {
            Err(Error::Invalid { id, .. }) => assert_eq!(id, "a"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(status(launcher, "a").await, Status::Unknown);
}

fn script(id: &str, script: &str) -> Worker {
    let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Worker { id: id.to_owned(), command, env: Vec::new(), ranks: 1 }
}

async fn status(launcher: &Arc<dyn Launcher>, id: &str) -> Status {
    launcher.status(id).await.expect("status")
}

async fn running(launcher: &Arc<dyn Launcher>, id: &str) -> String {
    match status(launcher, id).await {
        Status::Running { handle } => handle,
        other => panic!("{id} does not run: {other:?}"),
    }
}

async fn wait(launcher: &Arc<dyn Launcher>, id: &str) -> Exit {
    timeout(PATIENCE, launcher.wait(id)).await.expect("it ends in time").expect("wait")
}

async fn output(launcher: &Arc<dyn Launcher>, id: &str) -> String {
    String::from_utf8(launcher.log(id, 0).await.expect("log")).expect("the test prints UTF-8")
}

async fn until_output(launcher: &Arc<dyn Launcher>, id: &str, expected: &str) {
    let reached = async {
        while output(launcher, id).await != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(PATIENCE, reached).await.is_err() {
        panic!("the output is {:?}, not {expected:?}", output(launcher, id).await);
    }
}
