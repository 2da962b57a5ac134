//! Waiting for a job of another service: by its watch stream, again whenever that is lost, and by asking where the stream is silent.

use std::time::Duration;

use async_trait::async_trait;
use prost::Message;
use tidemill_chassis::Fault;
use tidemill_platform::Clients;
use tidemill_proto::Job;
use tidemill_proto::evaluation::v1::*;
use tidemill_proto::ingestion::v1::*;
use tidemill_proto::preprocessing::v1::*;
use tidemill_proto::training::v1::*;
use tidemill_proto::r#type::v1::{Progress, State};
use tonic::{Code, Status, Streaming};

use super::Turn;

/// A stream that says nothing for so long is asked past.
const SILENCE: Duration = Duration::from_secs(15);
/// Longest wait before a lost stream is opened again.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A job of another service.
#[async_trait]
pub(super) trait Remote: Job {
    async fn fetch(clients: &Clients, name: &str) -> Result<Self, Status>;
    async fn watch(clients: &Clients, name: &str) -> Result<Streaming<Self>, Status>;
    async fn cancel(clients: &Clients, name: &str) -> Result<Self, Status>;
}

macro_rules! remotes {
    ($($job:ident of $service:ident: $get:ident($get_request:ident), $watch:ident($watch_request:ident), $cancel:ident($cancel_request:ident);)*) => {
        $(
            #[async_trait]
            impl Remote for $job {
                async fn fetch(clients: &Clients, name: &str) -> Result<Self, Status> {
                    Ok(clients.$service().$get($get_request { name: name.to_owned() }).await?.into_inner())
                }
                async fn watch(clients: &Clients, name: &str) -> Result<Streaming<Self>, Status> {
                    Ok(clients.$service().$watch($watch_request { name: name.to_owned() }).await?.into_inner())
                }
                async fn cancel(clients: &Clients, name: &str) -> Result<Self, Status> {
                    Ok(clients.$service().$cancel($cancel_request { name: name.to_owned() }).await?.into_inner())
                }
            }
        )*

        /// Cancels the job of a name; one that is no job, or does not exist, needs none.
        pub(crate) async fn cancel(clients: &Clients, name: &str) -> Result<(), Fault> {
            let cancelled = match pattern(name).as_str() {
                $(<$job as tidemill_proto::Resource>::COLLECTION => $job::cancel(clients, name).await.map(drop),)*
                _ => Ok(()),
            };
            match cancelled {
                Err(status) if status.code() != Code::NotFound => Err(status.into()),
                _ => Ok(()),
            }
        }
    };
}

remotes! {
    DatasetVersion of ingestion: get_dataset_version(GetDatasetVersionRequest),
        watch_dataset_version(WatchDatasetVersionRequest), cancel_dataset_version(CancelDatasetVersionRequest);
    PreprocessingJob of preprocessing: get_preprocessing_job(GetPreprocessingJobRequest),
        watch_preprocessing_job(WatchPreprocessingJobRequest), cancel_preprocessing_job(CancelPreprocessingJobRequest);
    TrainingJob of training: get_training_job(GetTrainingJobRequest),
        watch_training_job(WatchTrainingJobRequest), cancel_training_job(CancelTrainingJobRequest);
    Evaluation of evaluation: get_evaluation(GetEvaluationRequest),
        watch_evaluation(WatchEvaluationRequest), cancel_evaluation(CancelEvaluationRequest);
}

/// The collection of a name: `datasets/-/versions/-` for `datasets/sotu/versions/1`.
fn pattern(name: &str) -> String {
    let segments = name.split('/').enumerate();
    segments.map(|(index, segment)| if index % 2 == 1 { "-" } else { segment }).collect::<Vec<_>>().join("/")
}

impl Turn {
    /// Waits until a job has ended well. Its progress becomes the run's; if the run is cancelled, so is the job.
    pub(super) async fn follow<J: Remote>(&self, step: &str, name: &str) -> Result<J, Fault> {
        tokio::select! {
            ended = self.follow_to_end::<J>(step, name) => result_of(ended?),
            () = self.context.cancelled().cancelled() => {
                if !self.context.stopping().is_cancelled() {
                    cancel(&self.clients, name).await?;
                }
                Err(Fault::unavailable("the work was stopped"))
            }
        }
    }

    async fn follow_to_end<J: Remote>(&self, step: &str, name: &str) -> Result<J, Fault> {
        let mut losses = 0;
        loop {
            let lost = match J::watch(&self.clients, name).await {
                Ok(stream) => match self.read::<J>(step, name, stream, &mut losses).await {
                    Ok(Some(ended)) => return Ok(ended),
                    Ok(None) => Status::unavailable("the stream ended early"),
                    Err(status) => status,
                },
                Err(status) => status,
            };
            let fault = Fault::from(lost);
            // A server that goes away mid-stream is seen as CANCELLED or UNKNOWN by tonic.
            if !fault.is_transient() && !matches!(fault.code, Code::Cancelled | Code::Unknown) {
                return Err(fault);
            }
            losses += 1;
            let phase = format!("{step}: waiting for {name}: {fault}");
            self.context.progress(Progress { phase, ..Progress::default() });
            tracing::warn!(job = name, error = %fault, "watch lost");
            tokio::time::sleep(LONGEST_WAIT.min(Duration::from_millis(100 << losses.min(6)))).await;
        }
    }

    /// Reads a stream to the job's end; nothing if the stream ends before.
    async fn read<J: Remote>(
        &self,
        step: &str,
        name: &str,
        mut stream: Streaming<J>,
        losses: &mut u32,
    ) -> Result<Option<J>, Status> {
        loop {
            let job = match tokio::time::timeout(SILENCE, stream.message()).await {
                Ok(message) => message?,
                Err(_silent) => Some(J::fetch(&self.clients, name).await?),
            };
            let Some(job) = job else { return Ok(None) };
            *losses = 0;
            self.context.progress(of_step(step, &job));
            if job.ended() {
                return Ok(Some(job));
            }
        }
    }
}

/// The job's progress as the run's.
fn of_step<J: Job>(step: &str, job: &J) -> Progress {
    let progress = job.progress().cloned().unwrap_or_default();
    let phase = match (job.job_state(), progress.phase.as_str()) {
        (State::Pending, _) => "waiting for a worker",
        (_, "") => "running",
        (_, phase) => phase,
    };
    Progress { phase: format!("{step}: {phase}"), ..progress }
}

/// The job, if it ended well; otherwise its own error, which no further attempt at the run can change.
fn result_of<J: Job>(job: J) -> Result<J, Fault> {
    if job.job_state() == State::Succeeded {
        return Ok(job);
    }
    let name = job.name();
    let Some(error) = job.error() else {
        return Err(Fault::precondition("STEP_CANCELLED", name, format!("{name} was cancelled")));
    };
    let status = Status::with_details(Code::from_i32(error.code), error.message.as_str(), error.encode_to_vec().into());
    let mut fault = Fault::from(status);
    fault.message = format!("{name} failed: {}", fault.message);
    fault.reason = "STEP_FAILED";
    if fault.is_transient() {
        fault.code = Code::FailedPrecondition;
    }
    Err(fault)
}
