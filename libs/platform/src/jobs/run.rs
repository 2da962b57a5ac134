//! Takes tasks and runs them to their end.

use std::sync::Arc;

use async_trait::async_trait;
use tidemill_chassis::{Fault, Task};
use tidemill_proto::Job;
use tidemill_proto::event::v1::JobRequested;
use tidemill_proto::r#type::v1::{Progress, State};
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tracing::Instrument;

use super::{Context, Jobs, now};
use crate::consumer::{self, Handler, Incoming};

/// Attempts at a job that fails for a reason that may pass, before it counts as failed.
const ATTEMPTS: u32 = 12;

/// Does the work of one kind of job.
#[async_trait]
pub trait Runner<J>: Send + Sync + 'static {
    /// Works and returns the job with its results filled in. Must be safe to start over: a crash at any instant runs it again, so
    /// results are content-addressed and derived from the job alone. A transient fault runs it again too; any other fails the job.
    async fn run(&self, job: J, context: &Context<J>) -> Result<J, Fault>;
}

struct Tasks<J, R> {
    jobs: Jobs<J>,
    runner: Arc<R>,
}

impl<J: Job> Jobs<J> {
    /// The background task that runs jobs, at most `at_once` in this process.
    pub fn task<R: Runner<J>>(&self, at_once: usize, runner: R) -> Task {
        let handler = Arc::new(Tasks { jobs: self.clone(), runner: Arc::new(runner) });
        let jobs = self.clone();
        Task::new(self.service, move |stop| async move {
            let tell_watchers = async {
                stop.cancelled().await;
                jobs.live.stopping.cancel();
            };
            let (log, group) = (jobs.log.clone(), jobs.service.to_owned());
            let consumer = consumer::run(jobs.service, log, jobs.tasks, group, at_once, handler, stop.clone());
            tokio::join!(tell_watchers, jobs.tell_states(stop.clone()), consumer);
        })
    }
}

#[async_trait]
impl<J: Job, R: Runner<J>> Handler for Tasks<J, R> {
    type Payload = JobRequested;

    async fn handle(&self, incoming: Incoming<JobRequested>) -> Result<(), Fault> {
        let name = incoming.payload.job.as_str();
        let context = Context {
            jobs: self.jobs.clone(),
            name: name.to_owned(),
            cancelled: incoming.stop.child_token(),
            stopping: incoming.stop.clone(),
        };
        let job = match self.begin(&context).await {
            Err(fault) if fault.code == Code::NotFound => return Ok(()),
            job => job?,
        };
        if job.ended() {
            return Ok(());
        }
        tracing::info!(job = name, attempt = incoming.attempt, "job begins");
        let ran = self.run_guarded(job, &context).await;
        let outcome = self.conclude(ran, &context, incoming.attempt, &incoming.stop).await;
        self.jobs.live.progress.lock().expect("no holder of this lock panics").remove(name);
        self.jobs.live.bell.send_modify(|count| *count += 1);
        outcome
    }
}

impl<J: Job, R: Runner<J>> Tasks<J, R> {
    async fn begin(&self, context: &Context<J>) -> Result<J, Fault> {
        context
            .update(|job| {
                job.set_job_state(State::Running);
                if job.start_time().is_none() {
                    job.set_start_time(Some(now()));
                }
            })
            .await
    }

    /// Runs with a panic turned into a fault, and a cancellation noticed.
    async fn run_guarded(&self, job: J, context: &Context<J>) -> Result<J, Fault> {
        let (runner, inner) = (self.runner.clone(), context.clone());
        let mut work = tokio::spawn(async move { runner.run(job, &inner).await }.in_current_span());
        let abort = AbortOnDrop(work.abort_handle());
        let ran = tokio::select! {
            ran = &mut work => ran,
            () = context.attend() => unreachable!("attending never ends"),
        };
        drop(abort);
        ran.unwrap_or_else(|panic| Err(Fault::internal(panic)))
    }

    async fn conclude(
        &self,
        ran: Result<J, Fault>,
        context: &Context<J>,
        attempt: u32,
        stop: &CancellationToken,
    ) -> Result<(), Fault> {
        let name = &context.name;
        match ran {
            Ok(done) => {
                self.jobs
                    .end(name, |job| {
                        let (error, start) = (job.error().cloned(), job.start_time());
                        let meta = tidemill_proto::Meta {
                            name: job.name().to_owned(),
                            uid: job.uid().to_owned(),
                            etag: job.etag().to_owned(),
                            ..Default::default()
                        };
                        *job = done.clone();
                        job.set_meta(meta);
                        job.set_error(error);
                        job.set_start_time(start);
                        job.set_job_state(State::Succeeded);
                    })
                    .await?;
                tracing::info!(job = name, "job succeeded");
            }
            // Stopped with the process: not concluded, the task comes again.
            Err(fault) if stop.is_cancelled() => return Err(fault),
            // Cancelled: the state says so already.
            Err(_) if context.cancelled.is_cancelled() => tracing::info!(job = name, "job cancelled"),
            Err(fault) if fault.is_transient() && attempt < ATTEMPTS => {
                metrics::counter!("tidemill_job_retries_total", "kind" => Jobs::<J>::told_kind()).increment(1);
                let phase = format!("waiting to try again: {fault}");
                context.share(&Progress { phase, ..Progress::default() }).await;
                return Err(fault);
            }
            Err(fault) => {
                let error = fault.to_rpc(&format!("{}.tidemill", self.jobs.service));
                self.jobs
                    .end(name, |job| {
                        job.set_error(Some(error.clone()));
                        job.set_job_state(State::Failed);
                    })
                    .await?;
                tracing::warn!(job = name, error = %fault, "job failed");
            }
        }
        Ok(())
    }
}

/// Work must not go on after its handler was dropped.
struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
