//! The worker: reads what the job names, resumes from the newest checkpoint, takes steps, saves, and leaves a model.

mod assignment;
mod gpu;
mod import;
mod inputs;
mod pace;
mod peers;
mod place;
mod publish;
mod ranks;
mod saver;
mod snapshots;

use std::path::PathBuf;
use std::time::Instant;

use tidemill_artifacts::Artifacts;
use tidemill_chassis::Fault;
use tidemill_platform::worker::{self, Ended, WorkerArguments};

pub(crate) use assignment::Assignment;
pub(crate) use publish::{history_reference, plot_reference};

use crate::error::{Error, Result};
use crate::learning::{Method, Rewards, Spec, Start, Trainer, World};
use pace::Pace;
use place::{Place, PodPlace};
use ranks::Children;
use saver::Saver;
use snapshots::Snapshots;

/// Checkpoints kept besides the last, where the spec does not say.
const KEPT: usize = 2;

/// What the log says when no answer of a step was better than another to its prompt.
const NOTHING_TAUGHT: &str = "all answers to each prompt were rewarded alike, which teaches nothing; if this goes on, look at the rewards, \
                              at temperature and at num_generations";

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
    let place = Place::from_environment()?;
    let folder = match place.rank() {
        0 => arguments.work_dir.clone(),
        rank => arguments.work_dir.join(format!("rank-{rank}")),
    };
    std::fs::create_dir_all(&folder).map_err(Error::file(&folder))?;
    if let Some(spec) = &job.import {
        import::run(artifacts, uid, spec, &folder).await?;
        return Ok(Ended::Done);
    }
    if place.rank() == 0 {
        pace::phase("reading the dataset");
    }
    let inputs = inputs::read(artifacts, job, &folder).await?;
    let spec = Spec::new(&job.spec.clone().unwrap_or_default(), inputs.config.clone())?;
    let run = Run { arguments, artifacts, assignment, inputs, spec, scratch: folder.join("scratch") };
    match place {
        Place::First => run.lead(stop).await,
        Place::Child(place) => run.learn(place.join()?, place.size, stop).await,
        Place::Pod(place) => run.accompany(&place, stop).await,
    }
}

/// A run in one process, whichever its rank.
struct Run<'a> {
    arguments: &'a WorkerArguments,
    artifacts: &'a Artifacts,
    assignment: &'a Assignment,
    inputs: inputs::Inputs,
    spec: Spec,
    scratch: PathBuf,
}

impl Run<'_> {
    /// Learns with as many ranks as the job asks for. Where one is lost, those that remain go on from the newest checkpoint.
    async fn lead(&self, stop: &dyn Fn() -> bool) -> Result<Ended> {
        let mut size = self.spec.ranks;
        let on_gpu = size > 1 && tidemill_torch::device::select().device.is_cuda();
        while size > 1 {
            let mut children = Children::start(size)?;
            let ended = match children.join() {
                Ok(world) => {
                    let _guard = on_gpu.then(|| children.end_with_them());
                    self.learn(world, size, stop).await
                }
                Err(error) => Err(error),
            };
            match ended {
                Err(error) if error.may_be_a_lost_rank() => {
                    let lost = children.lost();
                    if lost == 0 {
                        return Err(error);
                    }
                    if on_gpu {
                        ranks::give_up();
                    }
                    size = size.saturating_sub(lost).max(1);
                    tracing::warn!(lost, remaining = size, cause = %error, "ranks are lost; the others go on");
                }
                ended => return ended,
            }
        }
        self.learn(World::alone(), 1, stop).await
    }

    /// Learns as the rank of a pod. Where another is lost, this process ends, and the service starts the job again with those that remain.
    async fn accompany(&self, place: &PodPlace, stop: &dyn Fn() -> bool) -> Result<Ended> {
        if place.size == 1 {
            return self.learn(World::alone(), 1, stop).await;
        }
        let Some((peers, world)) = place.meet(&self.arguments.uid, stop)? else { return Ok(Ended::Stopped) };
        let ended = self.learn(world, 1, stop).await;
        match &ended {
            Ok(_) => peers.leave(),
            Err(error) if error.is_of_talking() => peers.settle(error),
            Err(_) => {}
        }
        ended
    }

    /// Resumes, takes steps and saves, together with the other ranks, of which so many share this machine's cores; rank 0 leaves the model.
    async fn learn(&self, world: World, sharing: usize, stop: &dyn Fn() -> bool) -> Result<Ended> {
        // Not before: children that are started inherit what is held back.
        let _undisturbed = tidemill_torch::process::undisturbed();
        let leads = world.rank() == 0;
        let threads = (threads(self.assignment.threads) / sharing as i32).max(1);
        tidemill_torch::process::set_threads(threads);
        let device = tidemill_torch::device::select();
        let (job, ranks) = (&self.assignment.job, world.size());
        let asked = job.spec.clone().unwrap_or_default();
        tracing::info!(job = job.name, device = ?device.device, reason = device.reason, threads, ranks, "training begins");
        for warning in &device.warnings {
            tracing::warn!(warning, "the GPU is used less well than it could be");
        }

        // Before a checkpoint is read, which rank 0 does first.
        world.share_devices(device.device)?;

        let snapshots = self.snapshots();
        snapshots.prepare()?;
        // Rank 0 chooses the checkpoint: what another rank would see first may have come meanwhile.
        let up_to = if leads { u64::MAX } else { world.told(0)? };
        let mut trainer = snapshots.resume(up_to, || self.fresh(device.device, &world)).await?;
        if leads {
            world.told(trainer.steps_done())?;
        } else if trainer.steps_done() != up_to {
            return Err(Error::RankLost(format!("rank {} cannot read the checkpoint of step {up_to}", world.rank())));
        }

        let left_out = trainer.left_out_of_precision();
        if leads && !left_out.is_empty() {
            tracing::warn!(layers = left_out.join(" "), "layers whose sizes are no multiples of 16 stay in bfloat16");
        }
        let every = match asked.checkpoint_every_steps {
            0 => (self.spec.steps / 10).max(1),
            every => every.unsigned_abs(),
        };
        let mut saver = Saver::start(snapshots, self.arguments.artifacts_url.clone())?;
        let mut saved = trainer.steps_done();
        let mut pace = Pace::new(self.spec.steps, saved, ranks, device.device);
        let mut was_idle = false;
        while !trainer.is_finished() {
            // Signals are seen while we wait.
            tokio::task::yield_now().await;
            if world.any(stop())? {
                if trainer.steps_done() > saved {
                    self.save(&trainer, &mut saver, &mut pace)?;
                }
                saver.finish()?;
                tracing::info!(step = trainer.steps_done(), "stopped as asked");
                return Ok(Ended::Stopped);
            }
            let step = trainer.step()?;
            if leads {
                pace.step(&step);
                let idle = step.figures.get("frac_reward_zero_std") == Some(&1.0);
                if idle && !was_idle {
                    tracing::warn!(step = step.step, "{NOTHING_TAUGHT}");
                }
                was_idle = idle;
            }
            if let Some(loss) = step.validation_loss.filter(|_| leads) {
                tracing::info!(step = step.step, loss = step.loss, validation_loss = loss, "validated");
            }
            if step.step.is_multiple_of(every) || trainer.is_finished() {
                self.save(&trainer, &mut saver, &mut pace)?;
                saved = step.step;
            }
        }
        saver.finish()?;
        trainer.gather()?;
        if leads {
            pace::phase("storing the model");
            let uid = self.arguments.uid.as_str();
            let digest = publish::publish(self.artifacts, uid, &asked, &self.inputs, trainer, &self.scratch).await?;
            tracing::info!(step = self.spec.steps, model = %digest, "training ends");
        }
        Ok(Ended::Done)
    }

    fn save(&self, trainer: &Trainer, saver: &mut Saver, pace: &mut Pace) -> Result<()> {
        let began = Instant::now();
        if let Some(checkpoint) = trainer.checkpoint()? {
            saver.save(checkpoint)?;
        }
        pace.stalled(began.elapsed());
        Ok(())
    }

    /// A run before its first step.
    fn fresh(&self, device: tch::Device, world: &World) -> Result<Trainer> {
        let job = &self.assignment.job;
        let teacher = job.spec.as_ref().and_then(|spec| spec.distillation.as_ref());
        let teacher = teacher.map_or("", |asked| asked.teacher_model_digest.as_str());
        let data = self.inputs.material.data(&self.spec)?;
        let start = self.inputs.base.as_ref().map_or(Start::Random, |(_, folder)| Start::From(folder));
        let mixed = job.mixed_datasets.iter().map(|more| format!(" {} {}", more.weight, more.dataset_digest));
        let tokenizer = job.tokenizer_digest.as_str();
        let datasets = [&job.dataset_digest, mixed.collect::<String>().as_str(), tokenizer].concat();
        let run_digest = self.spec.digest(&datasets, &job.base_model_digest, teacher);
        let mut trainer = Trainer::new(self.spec.clone(), run_digest, data, start, device, world.clone())?;
        if matches!(self.spec.method, Method::Grouped(_)) {
            let judge = Rewards::new(&self.spec.rewards, self.inputs.tokenizer.clone())?;
            trainer = trainer.with_judge(judge, self.inputs.ends.clone());
        }
        let Some((_, folder)) = &self.inputs.teacher else { return Ok(trainer) };
        let mut teacher = tidemill_models::load(folder, device).map_err(crate::learning::Error::from)?;
        teacher.merge_adapter().map_err(crate::learning::Error::from)?;
        Ok(trainer.with_teacher(teacher)?)
    }

    fn snapshots(&self) -> Snapshots {
        let keep = self.assignment.job.spec.as_ref().map_or(0, |spec| spec.keep_checkpoints);
        Snapshots {
            artifacts: self.artifacts.clone(),
            uid: self.arguments.uid.clone(),
            scratch: self.scratch.clone(),
            parents: self.inputs.parents(),
            keep: if keep > 0 { keep as usize } else { KEPT },
        }
    }
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
