mod grouped;
mod more;
mod pairs;
mod pods;
mod ranks;
pub(crate) mod world;

use std::cell::Cell;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use tidemill_artifacts::Digest;
use tidemill_platform::worker::{EXIT_STOPPED, Report, result_reference};
use tidemill_proto::r#type::v1::{AdamW, TrainingSpec};
use tonic::Code;

use super::*;
use world::{STEPS, World, spec};

/// Stops a run after so many looks.
fn after(patience: usize) -> impl Fn() -> bool {
    let looks = Cell::new(0);
    move || looks.replace(looks.get() + 1) >= patience
}

#[tokio::test]
async fn a_run_that_is_stopped_and_resumed_ends_with_the_same_bytes() {
    let world = World::new().await;
    assert_eq!(world.run("undisturbed", spec()).await.unwrap(), Ended::Done);
    let expected = world.result("undisturbed").await;
    for patience in [0, 1, 4, 5, 11] {
        let uid = format!("stopped-{patience}");
        let mut stops = 0;
        // Each start comes at most `patience` steps further; a start that comes no further is not repeated for ever.
        while run(&world.arguments(&uid, spec()), &world.artifacts, &after(patience.max(stops))).await.unwrap()
            == Ended::Stopped
        {
            stops += 1;
        }
        assert!(stops >= STEPS as usize / 12, "{stops}");
        assert_eq!(world.result(&uid).await, expected, "{patience}");
        for reference in [plot_reference, history_reference] {
            let digest = async |uid: &str| world.artifacts.resolve(&reference(uid)).await.unwrap().unwrap();
            assert_eq!(digest(&uid).await, digest("undisturbed").await);
        }
    }
}

/// Not a test of its own: what [`a_worker_that_is_killed_ends_with_the_same_bytes`] starts in another process.
#[test]
fn worker_process() {
    if std::env::var_os("TIDEMILL_WORKER").is_some() {
        std::process::exit(worker_main());
    }
}

/// Starts a worker process.
fn start(world: &World, uid: &str, spec: TrainingSpec) -> Child {
    let arguments = serde_json::to_string(&world.arguments(uid, spec)).unwrap();
    Command::new(std::env::current_exe().unwrap())
        .args(["worker::tests::worker_process", "--exact", "--nocapture"])
        .env("TIDEMILL_WORKER", arguments)
        .env("OMP_NUM_THREADS", "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Starts a worker process, does something to it once it has reported `step`, and returns its exit code.
fn disturbed(world: &World, uid: &str, spec: TrainingSpec, step: i64, disturb: impl Fn(&Child)) -> Option<i32> {
    let mut child = start(world, uid, spec);
    let mut sent = false;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let Ok(line) = line else { break };
        let report = line.strip_prefix("progress ").and_then(|json| serde_json::from_str::<Report>(json).ok());
        if report.is_some_and(|report| report.done >= step) && !sent && step >= 0 {
            disturb(&child);
            sent = true;
        }
    }
    child.wait().unwrap().code()
}

/// Sends a signal to a worker, if it has not ended meanwhile.
fn signal(child: &Child, signal: rustix::process::Signal) {
    let _ended = rustix::process::kill_process(rustix::process::Pid::from_child(child), signal);
}

#[tokio::test]
async fn a_worker_that_is_killed_ends_with_the_same_bytes() {
    let world = World::new().await;
    world.run("undisturbed", spec()).await.unwrap();
    let expected = world.result("undisturbed").await;
    let signals = [rustix::process::Signal::KILL, rustix::process::Signal::TERM];
    let mut stopped = 0;
    for (at, step) in [0, 1, 7, 8, 13, 20, 29].into_iter().enumerate() {
        let code = disturbed(&world, "killed", spec(), step, |child| signal(child, signals[at % 2]));
        assert!(matches!(code, None | Some(0 | EXIT_STOPPED)), "{code:?}");
        stopped += usize::from(code == Some(EXIT_STOPPED));
    }
    assert!(stopped > 0, "no worker left when it was asked to");
    assert_eq!(disturbed(&world, "killed", spec(), -1, |_| {}), Some(0));
    assert_eq!(world.result("killed").await, expected);
}

#[tokio::test]
async fn a_damaged_checkpoint_is_skipped_for_the_one_before_it() {
    let world = World::new().await;
    world.run("undisturbed", spec()).await.unwrap();
    let expected = world.result("undisturbed").await;
    for file in ["model.safetensors", "optimizer.safetensors", "state.json"] {
        let uid = format!("damaged-{}", file.split('.').next().unwrap());
        let ended = run(&world.arguments(&uid, spec()), &world.artifacts, &after(24)).await.unwrap();
        assert_eq!(ended, Ended::Stopped);
        let found = world.artifacts.list(&crate::checkpoints::prefix(&uid)).await.unwrap();
        let (newest, digest) = found.last().unwrap();
        assert!(newest.ends_with("0000000024") && found.len() == 3, "{found:?}");
        world.damage(digest, file).await;
        assert_eq!(world.run(&uid, spec()).await.unwrap(), Ended::Done);
        assert_eq!(world.result(&uid).await, expected);
        // The other runs share the damaged bytes: they must be whole again.
        world.artifacts.verify_directory(digest).await.unwrap_or_else(|_| panic!("{file} was not stored again"));
    }
}

#[tokio::test]
async fn old_checkpoints_and_their_files_are_deleted_and_the_last_ones_stay_whole() {
    let world = World::new().await;
    let spec = TrainingSpec { keep_checkpoints: 1, checkpoint_every_steps: 5, ..spec() };
    world.run("thinned", spec).await.unwrap();
    let kept = world.artifacts.list("checkpoints/").await.unwrap();
    let steps: Vec<_> = kept.iter().filter_map(|(name, _)| crate::checkpoints::step_of(name)).collect();
    assert_eq!(steps, [STEPS as u64 - 5, STEPS as u64]);
    let mut files = 0;
    for (_, digest) in &kept {
        files += world.artifacts.verify_directory(digest).await.unwrap().entries.len();
    }
    assert_eq!(files, 6);
    let model = world.artifacts.manifest(&world.result("thinned").await).await.unwrap();
    // Dataset, model, checkpoints, plot, curve, and nothing else. The model shares its tokenizer with the dataset and its weights with
    // the last checkpoint.
    let dataset = world.artifacts.manifest(&world.dataset).await.unwrap();
    let expected = (dataset.entries.len() + 1) + (model.entries.len() + 1 - 2) + (files + kept.len()) + 2;
    assert_eq!(world.blob_count(), expected);
}

#[tokio::test]
async fn the_model_is_a_hugging_face_directory_that_knows_its_parents() {
    let world = World::new().await;
    world.run("first", spec()).await.unwrap();
    let digest = world.result("first").await;
    let folder = world.folder.path().join("fetched");
    let manifest = world.artifacts.fetch_directory(&digest, &folder).await.unwrap();
    assert_eq!((manifest.kind.as_str(), &manifest.parents), ("model", &vec![world.dataset]));
    let names: Vec<_> = manifest.entries.iter().map(|entry| entry.path.as_str()).collect();
    let expected = [
        "chat_template.jinja",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(names, expected);
    let model = tidemill_models::load(&folder, tch::Device::Cpu).unwrap();
    assert_eq!(manifest.annotations["parameter_count"], model.parameter_count().to_string());
    assert_eq!(manifest.annotations["step"], STEPS.to_string());
    assert_eq!(manifest.annotations["tokenizer_digest"], "sha256:tokenizer");

    // Training goes on from it, and less surprised than from nothing.
    let mut tuned = world.job(TrainingSpec { architecture: None, steps: 10, ..spec() });
    tuned.base_model_digest = digest.to_string();
    let arguments = world.arguments_of("tuned", tuned);
    assert_eq!(run(&arguments, &world.artifacts, &|| false).await.unwrap(), Ended::Done);
    let manifest = world.artifacts.manifest(&world.result("tuned").await).await.unwrap();
    assert_eq!(manifest.parents, [world.dataset, digest]);
    let first = async |uid: &str| {
        let digest = world.artifacts.resolve(&history_reference(uid)).await.unwrap().unwrap();
        let bytes = world.artifacts.get(&digest).await.unwrap();
        let points: Vec<crate::history::MetricPoint> = serde_json::from_slice(&bytes).unwrap();
        (points[0].metrics["loss"], points.last().unwrap().metrics["validation_loss"])
    };
    let (fresh, tuned) = (first("first").await, first("tuned").await);
    assert!(fresh.1 < fresh.0 && tuned.0 < fresh.0 && tuned.1 < fresh.1, "{fresh:?} {tuned:?}");
}

#[tokio::test]
async fn a_damaged_shard_is_named_with_both_digests() {
    let world = World::new().await;
    let (expected, found) = world.damage(&world.dataset, "train/tokens-00000.bin").await;
    let fault = world.run("one", spec()).await.unwrap_err();
    assert_eq!(fault.reason, "ARTIFACT_DAMAGED");
    for part in ["train/tokens-00000.bin".to_owned(), expected.to_string(), found.to_string()] {
        assert!(fault.message.contains(&part), "{} lacks {part}", fault.message);
    }
}

#[tokio::test]
async fn a_loss_that_becomes_nan_fails_with_the_step_and_a_remedy() {
    let world = World::new().await;
    let optimizer = AdamW { learning_rate: 1e30, ..AdamW::default() };
    let fault = world.run("one", TrainingSpec { optimizer: Some(optimizer), ..spec() }).await.unwrap_err();
    assert_eq!((fault.code, fault.reason), (Code::FailedPrecondition, "LOSS_NOT_FINITE"));
    assert!(fault.message.contains("step") && fault.message.contains("learning rate"), "{fault}");
}

#[tokio::test]
async fn what_is_no_prepared_dataset_is_refused_by_field() {
    let world = World::new().await;
    world.run("one", spec()).await.unwrap();
    let mut job = world.job(spec());
    job.dataset_digest = world.result("one").await.to_string();
    let fault = run(&world.arguments_of("two", job), &world.artifacts, &|| false).await.unwrap_err();
    assert_eq!(fault.code, Code::InvalidArgument);
    assert!(fault.message.contains("is a model, not a prepared-dataset"), "{fault}");
}

#[tokio::test]
async fn a_second_worker_of_a_finished_job_does_nothing() {
    let world = World::new().await;
    world.run("one", spec()).await.unwrap();
    let never = || panic!("a finished job has no steps");
    assert_eq!(run(&world.arguments("one", spec()), &world.artifacts, &never).await.unwrap(), Ended::Done);
    let digest: Option<Digest> = world.artifacts.resolve(&result_reference("one")).await.unwrap();
    assert!(digest.is_some());
}
