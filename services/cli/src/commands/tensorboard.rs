//! `tidemill tensorboard`: the curves of training jobs as event files, live while they run.

use std::path::{Path, PathBuf};

use futures::TryStreamExt as _;
use tidemill_proto::Job as _;
use tidemill_proto::training::v1::{GetTrainingJobRequest, TrainingJob, WatchTrainingJobRequest};

use super::{Context, named};
use crate::arguments::Tensorboard;
use crate::connection::Connection;
use crate::events::EventFile;
use crate::failure::Failure;
use crate::words::seconds;

/// Writes the curve of each job, and of one that runs until its end.
pub(super) async fn execute(context: &Context, arguments: &Tensorboard) -> Result<(), Failure> {
    let connection = context.connect().await?;
    let each = arguments.jobs.iter().map(|job| one(context, &connection, job, &arguments.logdir));
    futures::future::try_join_all(each).await?;
    context.output.note(&format!("look at them with: tensorboard --logdir {}", arguments.logdir.display()));
    Ok(())
}

async fn one(context: &Context, connection: &Connection, job: &str, logdir: &Path) -> Result<(), Failure> {
    let name = named("trainingJobs", job);
    let mut job =
        connection.training().get_training_job(GetTrainingJobRequest { name: name.clone() }).await?.into_inner();
    let mut curve = Curve::create(logdir, &job)?;
    curve.extend(&job)?;
    if !job.ended() {
        context.output.note(&format!("{name} is being followed; Ctrl-C leaves it running"));
        let request = WatchTrainingJobRequest { name: name.clone() };
        let mut stream = connection.training().watch_training_job(request).await?.into_inner();
        while let Some(next) = stream.try_next().await? {
            curve.extend(&next)?;
            job = next;
        }
    }
    context.output.note(&format!("{}: {} points of {name}", curve.path.display(), curve.points));
    if job.history.is_empty() {
        return Err(Failure::Failed(format!("{name} has no curve: it has not come to its first step")));
    }
    Ok(())
}

/// The event file of a job.
struct Curve {
    path: PathBuf,
    file: EventFile,
    /// The last step written.
    step: i64,
    points: usize,
}

impl Curve {
    fn create(logdir: &Path, job: &TrainingJob) -> Result<Self, Failure> {
        let began = began(job);
        let folder = logdir.join(tidemill_proto::names::last_id(&job.name));
        // One file a job: writing it again replaces it.
        let path = folder.join(format!("events.out.tfevents.{}.tidemill", began as i64));
        let made = std::fs::create_dir_all(&folder).and_then(|()| EventFile::create(&path, began));
        let file = made.map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
        Ok(Self { path, file, step: 0, points: 0 })
    }

    /// Adds the points that are new.
    fn extend(&mut self, job: &TrainingJob) -> Result<(), Failure> {
        let began = began(job);
        let until = job.end_time.as_ref().or(job.update_time.as_ref()).map_or(began, seconds).max(began);
        let last = job.history.last().map_or(1, |point| point.step.max(1));
        for point in job.history.iter().filter(|point| point.step > self.step) {
            // The job keeps no time of each step: they are taken as equally long.
            let wall_time = began + (until - began) * point.step as f64 / last as f64;
            let written = self.file.scalars(wall_time, point.step, point.metrics.iter());
            written.map_err(|error| Failure::Failed(format!("{}: {error}", self.path.display())))?;
            self.points += 1;
        }
        self.step = job.history.last().map_or(self.step, |point| point.step.max(self.step));
        Ok(())
    }
}

fn began(job: &TrainingJob) -> f64 {
    job.start_time.as_ref().or(job.create_time.as_ref()).map_or(0.0, seconds)
}
