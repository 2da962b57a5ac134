//! Handlers: validate, call the domain, map errors.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use tidemill_chassis::Fault;
use tidemill_platform::{Jobs, Platform, worker};
use tidemill_proto::evaluation::v1::evaluation_service_server::EvaluationService;
use tidemill_proto::evaluation::v1::{
    CancelEvaluationRequest, CreateEvaluationRequest, Evaluation, GetEvaluationRequest, ListEvaluationsRequest,
    ListEvaluationsResponse, ReadEvaluationLogRequest, ReadEvaluationLogResponse, WatchEvaluationRequest,
};
use tidemill_proto::names;
use tidemill_resources::ListPage;
use tonic::{Request, Response, Status};

use crate::{outcome, validate};

pub(crate) struct Handlers {
    pub(crate) platform: Platform,
    pub(crate) jobs: Jobs<Evaluation>,
}

#[async_trait]
impl EvaluationService for Handlers {
    type WatchEvaluationStream = BoxStream<'static, Result<Evaluation, Status>>;
    type ReadEvaluationLogStream = BoxStream<'static, Result<ReadEvaluationLogResponse, Status>>;

    async fn create_evaluation(
        &self,
        request: Request<CreateEvaluationRequest>,
    ) -> Result<Response<Evaluation>, Status> {
        let request = request.into_inner();
        let asked = request.evaluation.ok_or_else(|| Fault::invalid("evaluation", "is required"))?;
        let model_digest = validate::check(&self.platform, &request.evaluation_id, &asked).await?;
        // Whatever else the caller filled in is for the server to say.
        let evaluation = Evaluation {
            labels: asked.labels,
            model_version: asked.model_version,
            model_digest,
            dataset_digest: asked.dataset_digest,
            suite_digest: asked.suite.as_ref().map_or_else(String::new, |s| outcome::suite_digest(s).to_string()),
            suite: asked.suite,
            ..Evaluation::default()
        };
        let created = self.jobs.create(evaluation, "", &request.evaluation_id, &request.request_id).await?;
        Ok(Response::new(created))
    }

    async fn get_evaluation(&self, request: Request<GetEvaluationRequest>) -> Result<Response<Evaluation>, Status> {
        Ok(Response::new(self.jobs.get(checked(&request.get_ref().name)?).await?))
    }

    async fn list_evaluations(
        &self,
        request: Request<ListEvaluationsRequest>,
    ) -> Result<Response<ListEvaluationsResponse>, Status> {
        let ListEvaluationsRequest { page_size, page_token } = request.into_inner();
        let page = self.jobs.list(ListPage { page_size, page_token, ..ListPage::default() }).await?;
        let response = ListEvaluationsResponse { evaluations: page.items, next_page_token: page.next_page_token };
        Ok(Response::new(response))
    }

    async fn watch_evaluation(
        &self,
        request: Request<WatchEvaluationRequest>,
    ) -> Result<Response<Self::WatchEvaluationStream>, Status> {
        Ok(Response::new(self.jobs.watch(checked(&request.get_ref().name)?).await?.boxed()))
    }

    async fn cancel_evaluation(
        &self,
        request: Request<CancelEvaluationRequest>,
    ) -> Result<Response<Evaluation>, Status> {
        Ok(Response::new(self.jobs.cancel(checked(&request.get_ref().name)?).await?))
    }

    async fn read_evaluation_log(
        &self,
        request: Request<ReadEvaluationLogRequest>,
    ) -> Result<Response<Self::ReadEvaluationLogStream>, Status> {
        let ReadEvaluationLogRequest { name, follow } = request.into_inner();
        let log = worker::log(&self.platform, &self.jobs, "evaluation", checked(&name)?, follow).await?;
        Ok(Response::new(log.map(|text| text.map(|text| ReadEvaluationLogResponse { text })).boxed()))
    }
}

fn checked(name: &str) -> Result<&str, Fault> {
    match names::ids(name, "evaluations/-") {
        Ok(_) => Ok(name),
        Err(error) => Err(Fault::invalid("name", error.to_string())),
    }
}
