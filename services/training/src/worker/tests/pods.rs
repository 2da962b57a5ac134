//! Jobs whose ranks are pods: processes with the environment that an Indexed Job gives, each on a host of its own.

mod hosts;

use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::super::place::{HOST, INDEX, PORT, SIZE};
use super::ranks::{LONG, losses, on};
use super::*;
use hosts::Hosts;
use rustix::process::Signal;

/// Exit code of a rank 0 that has lost others.
const LOST: i32 = 76;
/// How long a run may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// Within what the others have to end.
const BOUND: Duration = Duration::from_secs(10);

/// The ranks of a worker, each started as its pod would be.
struct Pods(Vec<Child>);

impl Pods {
    fn start(world: &World, uid: &str, spec: &TrainingSpec, size: usize, hosts: &Hosts) -> Self {
        Self::some(world, uid, spec, (0..size, size), hosts)
    }

    /// Those that a cluster has room for, of so many.
    fn some(
        world: &World,
        uid: &str,
        spec: &TrainingSpec,
        (ranks, size): (Range<usize>, usize),
        hosts: &Hosts,
    ) -> Self {
        let (host, port) = hosts.first();
        let start = |rank| {
            let mut command = hosts.command(rank);
            command
                .args(["worker::tests::worker_process", "--exact", "--nocapture"])
                .env("TIDEMILL_WORKER", serde_json::to_string(&world.arguments(uid, spec.clone())).unwrap())
                .env("OMP_NUM_THREADS", "1")
                .envs([(INDEX, rank.to_string()), (SIZE, size.to_string())])
                .envs([(HOST, host.to_string()), (PORT, port.to_string())])
                .stdout(if rank == 0 { Stdio::piped() } else { Stdio::null() })
                .stderr(Stdio::null());
            command.spawn().unwrap()
        };
        Self(ranks.map(start).collect())
    }

    /// Reads what rank 0 says on a thread of its own, and does something once it has reported `step`.
    fn at(&mut self, step: i64, act: impl FnOnce() + Send + 'static) -> JoinHandle<Vec<String>> {
        let output = BufReader::new(self.0[0].stdout.take().unwrap());
        let mut act = Some(act);
        std::thread::spawn(move || {
            let see = |line: &String| {
                let report = line.strip_prefix("progress ").and_then(|json| serde_json::from_str::<Report>(json).ok());
                if report.is_some_and(|report| report.done >= step) {
                    act.take().into_iter().for_each(|act| act());
                }
            };
            output.lines().map_while(std::io::Result::ok).inspect(see).collect()
        })
    }

    /// How each ends.
    fn end(&mut self) -> Vec<Option<i32>> {
        let began = Instant::now();
        while self.0.iter_mut().any(|pod| pod.try_wait().unwrap().is_none()) {
            assert!(began.elapsed() < PATIENCE, "pods do not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.0.iter_mut().map(|pod| pod.wait().unwrap().code()).collect()
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        for pod in &mut self.0 {
            let _ended = pod.kill();
            let _status = pod.wait();
        }
    }
}

fn assert_like(one: &[f64], other: &[f64], bound: f64) {
    assert_eq!(one.len(), other.len());
    for (step, (one, other)) in one.iter().zip(other).enumerate() {
        assert!((one - other).abs() < bound * one, "step {step}: {one} and {other}");
    }
}

/// Loses the last of three ranks on the way; the job, started again with those that remain, gives the losses of one process.
async fn lose_one(hosts: Hosts, lose: impl FnOnce(&Hosts, &Child)) {
    let (world, spec) = (World::new().await, on(4, LONG));
    world.run("one", on(1, LONG)).await.unwrap();
    let mut pods = Pods::start(&world, "lost", &spec, 4, &hosts);
    let (reached, wait) = std::sync::mpsc::channel();
    let said = pods.at(50, move || reached.send(()).unwrap());
    wait.recv().unwrap();
    let began = Instant::now();
    lose(&hosts, &pods.0[3]);
    let ended = pods.end();
    let took = began.elapsed();
    println!("all ranks had ended {took:?} after one was lost");
    assert!(took < BOUND, "the others went on for {took:?}");
    assert!(ended[0] == Some(LOST) && ended[1] == Some(1) && ended[2] == Some(1), "{ended:?}");
    assert_eq!(said.join().unwrap().last().unwrap(), "ranks 3");
    assert!(world.artifacts.resolve(&result_reference("lost")).await.unwrap().is_none());

    let mut pods = Pods::start(&world, "lost", &spec, 3, &hosts);
    let said = pods.at(i64::MAX, || {});
    assert_eq!(pods.end(), [Some(0); 3]);
    let first = said.join().unwrap().iter().find_map(|line| {
        let report: Report = serde_json::from_str(line.strip_prefix("progress ")?).ok()?;
        Some((report.done, *report.metrics.get("ranks")?))
    });
    let (step, ranks) = first.unwrap();
    // A checkpoint was made every 8 steps.
    assert!(step > 40 && ranks == 3.0, "it resumed with {ranks} ranks at step {step}");
    assert_like(&losses(&world, "one").await, &losses(&world, "lost").await, 1e-3);
}

#[tokio::test]
async fn two_and_four_pods_give_the_losses_of_one_process() {
    let world = World::new().await;
    world.run("one", on(1, STEPS)).await.unwrap();
    for ranks in [2, 4] {
        let uid = format!("{ranks}-pods");
        let mut pods = Pods::start(&world, &uid, &on(ranks, STEPS), ranks as usize, &Hosts::loopback());
        assert_eq!(pods.end(), vec![Some(0); ranks as usize]);
        assert_like(&losses(&world, "one").await, &losses(&world, &uid).await, 1e-4);
    }
}

#[tokio::test]
async fn a_killed_pod_ends_the_others_and_the_job_goes_on_with_those_that_remain() {
    lose_one(Hosts::loopback(), |_, pod| signal(pod, Signal::KILL)).await;
}

#[tokio::test]
async fn a_host_that_vanishes_ends_the_others_too() {
    let Some(hosts) = Hosts::apart(4) else { return };
    lose_one(hosts, |hosts, _| hosts.unplug(3)).await;
}

#[tokio::test]
async fn pods_end_with_the_first() {
    let world = World::new().await;
    let mut pods = Pods::start(&world, "first", &on(2, LONG), 2, &Hosts::loopback());
    let (reached, wait) = std::sync::mpsc::channel();
    pods.at(20, move || reached.send(()).unwrap());
    wait.recv().unwrap();
    let began = Instant::now();
    signal(&pods.0[0], Signal::KILL);
    assert_eq!(pods.end(), [None, Some(1)]);
    assert!(began.elapsed() < BOUND);
}

#[tokio::test]
async fn pods_that_are_asked_to_stop_save_and_a_resumed_run_ends_with_the_same_bytes() {
    let world = World::new().await;
    // Whether ranks are children or pods makes no difference.
    assert_eq!(disturbed(&world, "children", on(2, LONG), -1, |_| {}), Some(0));
    for (stopped, step) in [(0, 30), (1, 200)] {
        let mut pods = Pods::start(&world, "pods", &on(2, LONG), 2, &Hosts::loopback());
        let (reached, wait) = std::sync::mpsc::channel();
        pods.at(step, move || reached.send(()).unwrap());
        wait.recv().unwrap();
        signal(&pods.0[stopped], Signal::TERM);
        assert_eq!(pods.end(), [Some(EXIT_STOPPED); 2]);
    }
    let mut pods = Pods::start(&world, "pods", &on(2, LONG), 2, &Hosts::loopback());
    assert_eq!(pods.end(), [Some(0); 2]);
    assert_eq!(world.result("pods").await, world.result("children").await);
}

#[tokio::test]
async fn a_pod_that_waits_for_the_others_turns_strangers_away_and_can_be_stopped() {
    let (world, hosts) = (World::new().await, Hosts::loopback());
    let mut pods = Pods::some(&world, "waiting", &on(2, STEPS), (0..1, 2), &hosts);
    let (host, port) = hosts.first();
    let began = Instant::now();
    let mut stranger = loop {
        match TcpStream::connect((host, port)) {
            Ok(stream) => break stream,
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
        assert!(began.elapsed() < BOUND, "rank 0 does not listen");
    };
    std::io::Write::write_all(&mut stranger, b"{\"run\":\"another\",\"rank\":1,\"size\":2}\n").unwrap();
    assert_eq!(std::io::Read::read(&mut stranger, &mut [0]).unwrap(), 0, "a stranger is let in");
    assert!(TcpListener::bind((host, port)).is_err(), "rank 0 waits no more");
    signal(&pods.0[0], Signal::TERM);
    assert_eq!(pods.end(), [Some(EXIT_STOPPED)]);

    // So can one that waits for the first.
    let mut pods = Pods::some(&world, "waiting", &on(2, STEPS), (1..2, 2), &hosts);
    std::thread::sleep(Duration::from_secs(1));
    signal(&pods.0[0], Signal::TERM);
    assert_eq!(pods.end(), [Some(EXIT_STOPPED)]);
}
