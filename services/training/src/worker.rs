//! The worker: reads what the job names, resumes from the newest checkpoint, takes steps, saves, and leaves a model.

mod assignment;
mod import;
mod inputs;
mod pace;
mod publish;
mod snapshots;

use tidemill_artifacts::Artifacts;
use tidemill_chassis::Fault;
use tidemill_platform::worker::{self, Ended, WorkerArguments};

pub(crate) use assignment::Assignment;
pub(crate) use publish::{history_reference, plot_reference};

use crate::error::{Error, Result};
use crate::learning::{Spec, Start, Trainer};
use pace::Pace;
use snapshots::Snapshots;

/// Checkpoints kept besides the last, where the spec does not say.
const KEPT: usize = 2;

/// A worker process from its beginning to its exit code.
pub fn worker_main() -> i32 {
    worker::enter("training", async |arguments, artifacts, stop| {
        run(&arguments, &artifacts, &|| stop.requested()).await
    })
}

/// Trains to the end, or until `stop` says so: then the run is saved.
async fn run(
    arguments: &WorkerArguments,
    artifacts: &Artifacts,
    stop: &dyn Fn() -> bool,
) -> std::result::Result<Ended, Fault> {
    let assignment = Assignment::decode(&arguments.spec)?;
    tidemill_torch::process::set_threads(threads(assignment.threads));
    Ok(train(arguments, artifacts, &assignment, stop).await?)
}

async fn train(
    arguments: &WorkerArguments,
    artifacts: &Artifacts,
    assignment: &Assignment,
    stop: &dyn Fn() -> bool,
) -> Result<Ended> {
    let (uid, job) = (arguments.uid.as_str(), &assignment.job);
    if artifacts.resolve(&worker::result_reference(uid)).await?.is_some() {
        return Ok(Ended::Done);
    }
    std::fs::create_dir_all(&arguments.work_dir).map_err(Error::file(&arguments.work_dir))?;
    if let Some(spec) = &job.import {
        import::run(artifacts, uid, spec, &arguments.work_dir).await?;
        return Ok(Ended::Done);
    }
    pace::phase("reading the dataset");
    let inputs = inputs::read(artifacts, job, &arguments.work_dir).await?;
    let device = tidemill_torch::device::select();
    let threads = tidemill_torch::process::threads();
    tracing::info!(job = job.name, device = ?device.device, reason = device.reason, threads, "training begins");

    let asked = job.spec.clone().unwrap_or_default();
    let spec = Spec::new(&asked, inputs.config.clone())?;
    let run_digest = spec.digest(&job.dataset_digest, &job.base_model_digest);
    let fresh = || {
        let data = inputs.material.data(&spec)?;
        let start = inputs.base.as_ref().map_or(Start::Random, |(_, folder)| Start::From(folder));
        Ok(Trainer::new(spec.clone(), run_digest.clone(), data, start, device.device)?)
    };
    let mut parents = vec![inputs.dataset];
    parents.extend(inputs.base.as_ref().map(|(digest, _)| *digest));
    let keep = if asked.keep_checkpoints > 0 { asked.keep_checkpoints as usize } else { KEPT };
    let scratch = arguments.work_dir.join("scratch");
    let snapshots = Snapshots { artifacts, uid, scratch: scratch.clone(), parents, keep };
    snapshots.prepare()?;
    let mut trainer = snapshots.resume(fresh).await?;

    let every = match asked.checkpoint_every_steps {
        0 => (spec.steps / 10).max(1),
        every => every.unsigned_abs(),
    };
    let mut saved = trainer.steps_done();
    let mut pace = Pace::new(spec.steps, saved);
    while !trainer.is_finished() {
        // Signals are seen while we wait.
        tokio::task::yield_now().await;
        if stop() {
            if trainer.steps_done() > saved {
                snapshots.save(&trainer).await?;
            }
            tracing::info!(step = trainer.steps_done(), "stopped as asked");
            return Ok(Ended::Stopped);
        }
        let step = trainer.step()?;
        pace.step(&step);
        if let Some(loss) = step.validation_loss {
            tracing::info!(step = step.step, loss = step.loss, validation_loss = loss, "validated");
        }
        if step.step.is_multiple_of(every) || trainer.is_finished() {
            snapshots.save(&trainer).await?;
            saved = step.step;
        }
    }
    pace::phase("storing the model");
    let digest = publish::publish(artifacts, uid, &asked, &inputs, trainer, &scratch).await?;
    tracing::info!(step = spec.steps, model = %digest, "training ends");
    Ok(Ended::Done)
}

/// Threads for libtorch. All cores means those that this process may use: libtorch counts those of the machine, and a container
/// that has fewer would crawl.
fn threads(asked: usize) -> i32 {
    let all = || std::thread::available_parallelism().map_or(1, usize::from);
    let threads = if asked > 0 { asked } else { all().min(tidemill_torch::process::threads().unsigned_abs() as usize) };
    i32::try_from(threads).unwrap_or(i32::MAX)
}

#[cfg(test)]
pub(crate) mod tests;
