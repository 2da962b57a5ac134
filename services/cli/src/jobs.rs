//! Jobs of every kind behind one face: found by name, watched, cancelled.

use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _};
use serde_json::Value;
use tidemill_proto::Job;
use tidemill_proto::evaluation::v1 as evaluation;
use tidemill_proto::ingestion::v1 as ingestion;
use tidemill_proto::pipeline::v1 as pipeline;
use tidemill_proto::preprocessing::v1 as preprocessing;
use tidemill_proto::training::v1 as training;
use tonic::Status;

use crate::connection::Connection;
use crate::failure::Failure;
use crate::output::json;

/// A job of any kind.
#[derive(Clone, Debug)]
pub(crate) enum AnyJob {
    Ingestion(ingestion::DatasetVersion),
    Preprocessing(preprocessing::PreprocessingJob),
    Training(training::TrainingJob),
    Study(training::Study),
    Evaluation(evaluation::Evaluation),
    Run(pipeline::PipelineRun),
}

macro_rules! each {
    ($self:expr, $job:ident => $result:expr) => {
        match $self {
            AnyJob::Ingestion($job) => $result,
            AnyJob::Preprocessing($job) => $result,
            AnyJob::Training($job) => $result,
            AnyJob::Study($job) => $result,
            AnyJob::Evaluation($job) => $result,
            AnyJob::Run($job) => $result,
        }
    };
}
pub(crate) use each;

impl AnyJob {
    /// What it is, in a word.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Ingestion(_) => "ingestion",
            Self::Preprocessing(_) => "preprocessing",
            Self::Training(_) => "training",
            Self::Study(_) => "study",
            Self::Evaluation(_) => "evaluation",
            Self::Run(_) => "run",
        }
    }

    /// All of it.
    pub(crate) fn json(&self) -> Value {
        each!(self, job => json(job))
    }

    /// Whether it has ended.
    pub(crate) fn ended(&self) -> bool {
        each!(self, job => job.ended())
    }

    /// When it was created, for sorting.
    pub(crate) fn created(&self) -> (i64, i32) {
        each!(self, job => job.create_time.map_or((0, 0), |time| (time.seconds, time.nanos)))
    }
}

/// Sends a job now and at every change, to its end.
pub(crate) async fn watch(
    connection: &Connection,
    name: &str,
) -> Result<BoxStream<'static, Result<AnyJob, Status>>, Status> {
    let owned = name.to_owned();
    Ok(match name.split('/').next().unwrap_or_default() {
        "datasets" => {
            let request = ingestion::WatchDatasetVersionRequest { name: owned };
            connection.ingestion().watch_dataset_version(request).await?.into_inner().map_ok(AnyJob::Ingestion).boxed()
        }
        "preprocessingJobs" => {
            let request = preprocessing::WatchPreprocessingJobRequest { name: owned };
            let stream = connection.preprocessing().watch_preprocessing_job(request).await?.into_inner();
            stream.map_ok(AnyJob::Preprocessing).boxed()
        }
        "trainingJobs" => {
            let request = training::WatchTrainingJobRequest { name: owned };
            connection.training().watch_training_job(request).await?.into_inner().map_ok(AnyJob::Training).boxed()
        }
        "studies" => {
            let request = training::WatchStudyRequest { name: owned };
            connection.studies().watch_study(request).await?.into_inner().map_ok(AnyJob::Study).boxed()
        }
        "evaluations" => {
            let request = evaluation::WatchEvaluationRequest { name: owned };
            connection.evaluation().watch_evaluation(request).await?.into_inner().map_ok(AnyJob::Evaluation).boxed()
        }
        "pipelines" => {
            let request = pipeline::WatchPipelineRunRequest { name: owned };
            connection.pipeline().watch_pipeline_run(request).await?.into_inner().map_ok(AnyJob::Run).boxed()
        }
        _ => return Err(not_a_job(name)),
    })
}

/// Reads a job.
pub(crate) async fn get(connection: &Connection, name: &str) -> Result<AnyJob, Status> {
    let name = name.to_owned();
    Ok(match name.split('/').next().unwrap_or_default() {
        "datasets" => {
            let request = ingestion::GetDatasetVersionRequest { name };
            AnyJob::Ingestion(connection.ingestion().get_dataset_version(request).await?.into_inner())
        }
        "preprocessingJobs" => {
            let request = preprocessing::GetPreprocessingJobRequest { name };
            AnyJob::Preprocessing(connection.preprocessing().get_preprocessing_job(request).await?.into_inner())
        }
        "trainingJobs" => {
            let request = training::GetTrainingJobRequest { name };
            AnyJob::Training(connection.training().get_training_job(request).await?.into_inner())
        }
        "studies" => {
            let request = training::GetStudyRequest { name };
            AnyJob::Study(connection.studies().get_study(request).await?.into_inner())
        }
        "evaluations" => {
            let request = evaluation::GetEvaluationRequest { name };
            AnyJob::Evaluation(connection.evaluation().get_evaluation(request).await?.into_inner())
        }
        "pipelines" => {
            let request = pipeline::GetPipelineRunRequest { name };
            AnyJob::Run(connection.pipeline().get_pipeline_run(request).await?.into_inner())
        }
        _ => return Err(not_a_job(&name)),
    })
}

/// Asks a job to stop.
pub(crate) async fn cancel(connection: &Connection, name: &str) -> Result<AnyJob, Status> {
    let name = name.to_owned();
    Ok(match name.split('/').next().unwrap_or_default() {
        "datasets" => {
            let request = ingestion::CancelDatasetVersionRequest { name };
            AnyJob::Ingestion(connection.ingestion().cancel_dataset_version(request).await?.into_inner())
        }
        "preprocessingJobs" => {
            let request = preprocessing::CancelPreprocessingJobRequest { name };
            AnyJob::Preprocessing(connection.preprocessing().cancel_preprocessing_job(request).await?.into_inner())
        }
        "trainingJobs" => {
            let request = training::CancelTrainingJobRequest { name };
            AnyJob::Training(connection.training().cancel_training_job(request).await?.into_inner())
        }
        "studies" => {
            let request = training::CancelStudyRequest { name };
            AnyJob::Study(connection.studies().cancel_study(request).await?.into_inner())
        }
        "evaluations" => {
            let request = evaluation::CancelEvaluationRequest { name };
            AnyJob::Evaluation(connection.evaluation().cancel_evaluation(request).await?.into_inner())
        }
        "pipelines" => {
            let request = pipeline::CancelPipelineRunRequest { name };
            AnyJob::Run(connection.pipeline().cancel_pipeline_run(request).await?.into_inner())
        }
        _ => return Err(not_a_job(&name)),
    })
}

fn not_a_job(name: &str) -> Status {
    let forms = "pipelines/../runs/.., trainingJobs/.., studies/.., evaluations/.., preprocessingJobs/.., \
                 datasets/../versions/..";
    Status::invalid_argument(format!("{name} is not a job's name; jobs are {forms}"))
}

/// The newest jobs of every kind that `kinds` names, newest first.
pub(crate) async fn list(connection: &Connection, kinds: &[&str], limit: usize) -> Result<Vec<AnyJob>, Status> {
    let page_size = i32::try_from(limit.min(1000)).unwrap_or(1000);
    let page_token = String::new();
    let any = |collection: &str| format!("{collection}/-");
    let mut jobs = Vec::new();
    for kind in kinds {
        let page_token = page_token.clone();
        match *kind {
            "ingestion" => {
                let request = ingestion::ListDatasetVersionsRequest { parent: any("datasets"), page_size, page_token };
                let page = connection.ingestion().list_dataset_versions(request).await?.into_inner();
                jobs.extend(page.dataset_versions.into_iter().map(AnyJob::Ingestion));
            }
            "preprocessing" => {
                let request = preprocessing::ListPreprocessingJobsRequest { page_size, page_token };
                let page = connection.preprocessing().list_preprocessing_jobs(request).await?.into_inner();
                jobs.extend(page.preprocessing_jobs.into_iter().map(AnyJob::Preprocessing));
            }
            "training" => {
                let request = training::ListTrainingJobsRequest { page_size, page_token };
                let page = connection.training().list_training_jobs(request).await?.into_inner();
                jobs.extend(page.training_jobs.into_iter().map(AnyJob::Training));
            }
            "study" => {
                let request = training::ListStudiesRequest { page_size, page_token };
                let page = connection.studies().list_studies(request).await?.into_inner();
                jobs.extend(page.studies.into_iter().map(AnyJob::Study));
            }
            "evaluation" => {
                let request = evaluation::ListEvaluationsRequest { page_size, page_token };
                let page = connection.evaluation().list_evaluations(request).await?.into_inner();
                jobs.extend(page.evaluations.into_iter().map(AnyJob::Evaluation));
            }
            _ => {
                let request = pipeline::ListPipelineRunsRequest { parent: any("pipelines"), page_size, page_token };
                let page = connection.pipeline().list_pipeline_runs(request).await?.into_inner();
                jobs.extend(page.pipeline_runs.into_iter().map(AnyJob::Run));
            }
        }
    }
    jobs.sort_by_key(|job| std::cmp::Reverse(job.created()));
    Ok(jobs)
}

/// Every kind of job.
pub(crate) const KINDS: [&str; 6] = ["run", "training", "study", "evaluation", "preprocessing", "ingestion"];

/// Turns an id into the full name of the newest job that has it.
pub(crate) async fn resolve(connection: &Connection, name: &str) -> Result<String, Failure> {
    if name.contains('/') {
        return Ok(name.to_owned());
    }
    let found = list(connection, &KINDS, 1000).await?;
    let found = found.iter().map(|job| each!(job, job => job.name.clone()));
    let mut found = found.filter(|full| tidemill_proto::names::last_id(full) == name);
    found.next().ok_or_else(|| Failure::NotFound(format!("no job has the id {name}; `tidemill jobs list` lists them")))
}

/// Whether a resource can be watched.
pub(crate) fn is_job(name: &str) -> bool {
    let collection = name.split('/').next().unwrap_or_default();
    match collection {
        "datasets" | "pipelines" => name.split('/').count() == 4,
        _ => matches!(collection, "preprocessingJobs" | "trainingJobs" | "studies" | "evaluations"),
    }
}
