//! Jobs on several ranks, as processes: the same losses, and what happens when one of them dies.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tidemill_proto::r#type::v1::training_spec::Sharding;

use super::*;
use crate::history::MetricPoint;

/// Steps of a run that is still going on when something is done to it.
pub(super) const LONG: i64 = 500;

/// One global batch of 8, on so many ranks.
pub(super) fn on(ranks: i32, steps: i64) -> TrainingSpec {
    // A rate at which small differences of rounding stay small.
    let optimizer = Some(AdamW { learning_rate: 1e-3, ..AdamW::default() });
    TrainingSpec { ranks, batch_size: 2, accumulation: 4 / ranks, steps, optimizer, ..spec() }
}

pub(super) async fn losses(world: &World, uid: &str) -> Vec<f64> {
    let digest = world.artifacts.resolve(&history_reference(uid)).await.unwrap().unwrap();
    let points: Vec<MetricPoint> = serde_json::from_slice(&world.artifacts.get(&digest).await.unwrap()).unwrap();
    points.iter().map(|point| point.metrics["loss"]).collect()
}

fn alive(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero()));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

/// Processes whose parent is `pid`.
fn children(pid: u32) -> Vec<Pid> {
    let parent = format!("PPid:\t{pid}");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let of = |entry: std::fs::DirEntry| {
        let status = std::fs::read_to_string(entry.path().join("status")).ok()?;
        let own = !status.contains("State:\tZ") && status.lines().any(|line| line == parent);
        own.then(|| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)).flatten()
    };
    processes.filter_map(of).collect()
}

#[tokio::test]
async fn two_and_four_ranks_give_the_losses_of_one() {
    let world = World::new().await;
    world.run("one", on(1, STEPS)).await.unwrap();
    let one = losses(&world, "one").await;
    for (ranks, sharding) in
        [(2, Sharding::Optimizer), (4, Sharding::Optimizer), (2, Sharding::Full), (4, Sharding::Full)]
    {
        let uid = format!("{ranks}-ranks-{}", sharding as i32);
        let spec = TrainingSpec { sharding: sharding.into(), ..on(ranks, STEPS) };
        assert_eq!(disturbed(&world, &uid, spec, -1, |_| {}), Some(0));
        let several = losses(&world, &uid).await;
        assert_eq!(several.len(), one.len());
        for (step, (one, other)) in one.iter().zip(&several).enumerate() {
            assert!((one - other).abs() < 1e-4 * one, "{ranks} ranks, step {step}: {one} and {other}");
        }
    }
}

#[tokio::test]
async fn a_lost_rank_stops_the_others_and_the_job_goes_on_with_those_that_remain() {
    let world = World::new().await;
    world.run("one", on(1, LONG)).await.unwrap();
    loses_one(&world, "lost", on(4, LONG)).await;
    // Its part of the weights is in the checkpoint.
    loses_one(&world, "lost-part", TrainingSpec { sharding: Sharding::Full.into(), ..on(4, LONG) }).await;
}

async fn loses_one(world: &World, uid: &str, spec: TrainingSpec) {
    let killed = Cell::new(None);
    let code = disturbed(world, uid, spec, 50, |child| {
        let others = children(child.id());
        assert_eq!(others.len(), 3, "ranks besides the first");
        kill_process(others[1], Signal::KILL).unwrap();
        // The others end, and two start anew.
        let began = Instant::now();
        while others.iter().any(|pid| alive(*pid)) {
            assert!(began.elapsed() < Duration::from_secs(10), "the others go on without the lost one");
            std::thread::sleep(Duration::from_millis(5));
        }
        killed.set(Some(began.elapsed()));
    });
    assert_eq!(code, Some(0));
    println!("all ranks had ended {:?} after one was killed", killed.get().unwrap());
    let (one, lost) = (losses(world, "one").await, losses(world, uid).await);
    assert_eq!(lost.len(), one.len());
    for (step, (one, other)) in one.iter().zip(&lost).enumerate() {
        assert!((one - other).abs() < 1e-3 * one, "step {step}: {one} and {other}");
    }
}

#[tokio::test]
async fn ranks_end_with_the_first_and_a_resumed_run_ends_with_the_same_bytes() {
    let world = World::new().await;
    assert_eq!(disturbed(&world, "undisturbed", on(2, LONG), -1, |_| {}), Some(0));
    for (at, step) in [30, 100, 200, 300].into_iter().enumerate() {
        disturbed(&world, "killed", on(2, LONG), step, |child| {
            let others = children(child.id());
            assert_eq!(others.len(), 1, "ranks besides the first");
            signal(child, [Signal::KILL, Signal::TERM][at % 2]);
            let began = Instant::now();
            while others.iter().any(|pid| alive(*pid)) {
                assert!(began.elapsed() < Duration::from_secs(10), "ranks outlive the first");
                std::thread::sleep(Duration::from_millis(5));
            }
        });
    }
    assert_eq!(disturbed(&world, "killed", on(2, LONG), -1, |_| {}), Some(0));
    assert_eq!(world.result("killed").await, world.result("undisturbed").await);
}
