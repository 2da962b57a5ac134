//! Handlers: validate, call the domain, map errors.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use tidemill_chassis::Fault;
use tidemill_platform::{Jobs, Platform, worker};
use tidemill_proto::names;
use tidemill_proto::training::v1::training_service_server::TrainingService;
use tidemill_proto::training::v1::{
    CancelTrainingJobRequest, CreateTrainingJobRequest, GetTrainingJobRequest, ListCheckpointsRequest,
    ListCheckpointsResponse, ListTrainingJobsRequest, ListTrainingJobsResponse, ReadTrainingJobLogRequest,
    ReadTrainingJobLogResponse, TrainingJob, WatchTrainingJobRequest,
};
use tidemill_resources::ListPage;
use tonic::{Request, Response, Status};

use crate::{checkpoints, validate};

pub(crate) struct Handlers {
    pub(crate) platform: Platform,
    pub(crate) jobs: Jobs<TrainingJob>,
}

#[async_trait]
impl TrainingService for Handlers {
    type WatchTrainingJobStream = BoxStream<'static, Result<TrainingJob, Status>>;
    type ReadTrainingJobLogStream = BoxStream<'static, Result<ReadTrainingJobLogResponse, Status>>;

    async fn create_training_job(
        &self,
        request: Request<CreateTrainingJobRequest>,
    ) -> Result<Response<TrainingJob>, Status> {
        let request = request.into_inner();
        let asked = request.training_job.ok_or_else(|| Fault::invalid("training_job", "is required"))?;
        validate::check(&self.platform, &request.training_job_id, &asked).await?;
        let job = asked_of(asked);
        Ok(Response::new(self.jobs.create(job, "", &request.training_job_id, &request.request_id).await?))
    }

    async fn get_training_job(&self, request: Request<GetTrainingJobRequest>) -> Result<Response<TrainingJob>, Status> {
        Ok(Response::new(self.jobs.get(checked(&request.get_ref().name)?).await?))
    }

    async fn list_training_jobs(
        &self,
        request: Request<ListTrainingJobsRequest>,
    ) -> Result<Response<ListTrainingJobsResponse>, Status> {
        let ListTrainingJobsRequest { page_size, page_token } = request.into_inner();
        let page = self.jobs.list(ListPage { page_size, page_token, ..ListPage::default() }).await?;
        let response = ListTrainingJobsResponse { training_jobs: page.items, next_page_token: page.next_page_token };
        Ok(Response::new(response))
    }

    async fn watch_training_job(
        &self,
        request: Request<WatchTrainingJobRequest>,
    ) -> Result<Response<Self::WatchTrainingJobStream>, Status> {
        Ok(Response::new(self.jobs.watch(checked(&request.get_ref().name)?).await?.boxed()))
    }

    async fn cancel_training_job(
        &self,
        request: Request<CancelTrainingJobRequest>,
    ) -> Result<Response<TrainingJob>, Status> {
        Ok(Response::new(self.jobs.cancel(checked(&request.get_ref().name)?).await?))
    }

    async fn list_checkpoints(
        &self,
        request: Request<ListCheckpointsRequest>,
    ) -> Result<Response<ListCheckpointsResponse>, Status> {
        Ok(Response::new(checkpoints::list(&self.platform, &self.jobs, request.get_ref()).await?))
    }

    async fn read_training_job_log(
        &self,
        request: Request<ReadTrainingJobLogRequest>,
    ) -> Result<Response<Self::ReadTrainingJobLogStream>, Status> {
        let ReadTrainingJobLogRequest { name, follow } = request.into_inner();
        let log = worker::log(&self.platform, &self.jobs, "training", checked(&name)?, follow).await?;
        Ok(Response::new(log.map(|text| text.map(|text| ReadTrainingJobLogResponse { text })).boxed()))
    }
}

/// What a caller may ask for; whatever else was filled in is for the server to say.
pub(crate) fn asked_of(job: TrainingJob) -> TrainingJob {
    TrainingJob {
        labels: job.labels,
        spec: job.spec,
        dataset_digest: job.dataset_digest,
        base_model_digest: job.base_model_digest,
        model: job.model,
        import: job.import,
        mixed_datasets: job.mixed_datasets,
        tokenizer_digest: job.tokenizer_digest,
        ..TrainingJob::default()
    }
}

fn checked(name: &str) -> Result<&str, Fault> {
    match names::ids(name, "trainingJobs/-") {
        Ok(_) => Ok(name),
        Err(error) => Err(Fault::invalid("name", error.to_string())),
    }
}
