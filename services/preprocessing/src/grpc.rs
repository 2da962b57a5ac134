//! The service's API: validate, call the jobs, map errors.

use futures::StreamExt;
use futures::stream::BoxStream;
use tidemill_artifacts::Artifacts;
use tidemill_chassis::Fault;
use tidemill_platform::{Jobs, Platform};
use tidemill_proto::names;
use tidemill_proto::preprocessing::v1::preprocessing_service_server::PreprocessingService;
use tidemill_proto::preprocessing::v1::*;
use tidemill_resources::{ListPage, Page};
use tonic::{Request, Response, Status};

use crate::{contents, fates, validate};

type Answer<T> = Result<Response<T>, Status>;

/// The handlers' state.
pub(crate) struct Handlers {
    jobs: Jobs<PreprocessingJob>,
    artifacts: Artifacts,
}

impl Handlers {
    pub(crate) fn new(platform: &Platform, jobs: Jobs<PreprocessingJob>) -> Self {
        Self { jobs, artifacts: platform.artifacts.clone() }
    }
}

#[tonic::async_trait]
impl PreprocessingService for Handlers {
    type WatchPreprocessingJobStream = BoxStream<'static, Result<PreprocessingJob, Status>>;

    async fn create_preprocessing_job(
        &self,
        request: Request<CreatePreprocessingJobRequest>,
    ) -> Answer<PreprocessingJob> {
        let request = request.into_inner();
        let job = request.preprocessing_job.unwrap_or_default();
        validate::job(&job)?;
        let PreprocessingJob { labels, inputs, recipe, .. } = job;
        let job = PreprocessingJob { labels, inputs, recipe, ..Default::default() };
        contents::check(&self.artifacts, &job).await?;
        Ok(Response::new(self.jobs.create(job, "", &request.preprocessing_job_id, &request.request_id).await?))
    }

    async fn get_preprocessing_job(&self, request: Request<GetPreprocessingJobRequest>) -> Answer<PreprocessingJob> {
        Ok(Response::new(self.jobs.get(&request.get_ref().name).await?))
    }

    async fn list_preprocessing_jobs(
        &self,
        request: Request<ListPreprocessingJobsRequest>,
    ) -> Answer<ListPreprocessingJobsResponse> {
        let ListPreprocessingJobsRequest { page_size, page_token } = request.into_inner();
        let page = ListPage { page_size, page_token, ..ListPage::default() };
        let Page { items: preprocessing_jobs, next_page_token } = self.jobs.list(page).await?;
        Ok(Response::new(ListPreprocessingJobsResponse { preprocessing_jobs, next_page_token }))
    }

    async fn watch_preprocessing_job(
        &self,
        request: Request<WatchPreprocessingJobRequest>,
    ) -> Answer<Self::WatchPreprocessingJobStream> {
        Ok(Response::new(self.jobs.watch(&request.get_ref().name).await?.boxed()))
    }

    async fn cancel_preprocessing_job(
        &self,
        request: Request<CancelPreprocessingJobRequest>,
    ) -> Answer<PreprocessingJob> {
        Ok(Response::new(self.jobs.cancel(&request.get_ref().name).await?))
    }

    async fn list_record_fates(&self, request: Request<ListRecordFatesRequest>) -> Answer<ListRecordFatesResponse> {
        let request = request.into_inner();
        match names::ids(&request.parent, "preprocessingJobs/-") {
            Ok(ids) if ids[0] == "-" => return Err(Fault::invalid("parent", "it names many; name one job").into()),
            Ok(_) => {}
            Err(error) => return Err(Fault::invalid("parent", error.to_string()).into()),
        }
        let job = self.jobs.get(&request.parent).await?;
        Ok(Response::new(fates::list(&self.artifacts, &job, &request).await?))
    }
}
