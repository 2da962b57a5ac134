//! Handlers: validate, call the domain, map errors.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use tidemill_chassis::Fault;
use tidemill_platform::{Jobs, Platform, fault_of_resources};
use tidemill_proto::names;
use tidemill_proto::training::v1::study_service_server::StudyService;
use tidemill_proto::training::v1::{
    CancelStudyRequest, CreateStudyRequest, GetStudyRequest, ListStudiesRequest, ListStudiesResponse, PlotStudyRequest,
    PlotStudyResponse, Study, TrainingJob, WatchStudyRequest,
};
use tidemill_proto::r#type::v1::State;
use tidemill_resources::{Error, ListPage, OutboxEvent};
use tonic::{Request, Response, Status};

use super::plot::trials_plot;
use super::search::has_ended;
use super::{runner, validate};
use crate::grpc::asked_of;

pub(crate) struct Handlers {
    pub(crate) platform: Platform,
    pub(crate) studies: Jobs<Study>,
    pub(crate) jobs: Jobs<TrainingJob>,
}

#[async_trait]
impl StudyService for Handlers {
    type WatchStudyStream = BoxStream<'static, Result<Study, Status>>;

    async fn create_study(&self, request: Request<CreateStudyRequest>) -> Result<Response<Study>, Status> {
        let CreateStudyRequest { study_id, study, request_id } = request.into_inner();
        let asked = study.ok_or_else(|| Fault::invalid("study", "is required"))?;
        // Whatever else the caller filled in is for the server to say.
        let study = Study {
            labels: asked.labels,
            training_job: asked.training_job.map(asked_of),
            parameters: asked.parameters,
            objective: asked.objective,
            direction: asked.direction,
            max_trials: asked.max_trials,
            parallel_trials: asked.parallel_trials,
            seed: asked.seed,
            algorithm: asked.algorithm,
            successive_halving: asked.successive_halving,
            ..Study::default()
        };
        validate::check(&self.platform, &study_id, &study).await?;
        Ok(Response::new(self.studies.create(study, "", &study_id, &request_id).await?))
    }

    async fn get_study(&self, request: Request<GetStudyRequest>) -> Result<Response<Study>, Status> {
        Ok(Response::new(self.studies.get(checked(&request.get_ref().name)?).await?))
    }

    async fn list_studies(
        &self,
        request: Request<ListStudiesRequest>,
    ) -> Result<Response<ListStudiesResponse>, Status> {
        let ListStudiesRequest { page_size, page_token } = request.into_inner();
        let page = self.studies.list(ListPage { page_size, page_token, ..ListPage::default() }).await?;
        Ok(Response::new(ListStudiesResponse { studies: page.items, next_page_token: page.next_page_token }))
    }

    async fn watch_study(
        &self,
        request: Request<WatchStudyRequest>,
    ) -> Result<Response<Self::WatchStudyStream>, Status> {
        Ok(Response::new(self.studies.watch(checked(&request.get_ref().name)?).await?.boxed()))
    }

    async fn cancel_study(&self, request: Request<CancelStudyRequest>) -> Result<Response<Study>, Status> {
        let name = checked(&request.get_ref().name)?;
        let study = self.studies.cancel(name).await?;
        if study.state() != State::Cancelled {
            return Ok(Response::new(study));
        }
        // Also where no process works on the study.
        runner::stop_jobs(&self.jobs, &study.trials).await?;
        let collection = self.platform.collection::<Study>();
        let settled = collection.modify(name, |study: &mut Study| {
            for trial in study.trials.iter_mut().filter(|trial| !has_ended(trial)) {
                trial.set_state(State::Cancelled);
            }
            Ok::<Vec<OutboxEvent>, Error>(Vec::new())
        });
        Ok(Response::new(settled.await.map_err(fault_of_resources)?))
    }

    async fn plot_study(&self, request: Request<PlotStudyRequest>) -> Result<Response<PlotStudyResponse>, Status> {
        let study = self.studies.get(checked(&request.get_ref().name)?).await?;
        Ok(Response::new(PlotStudyResponse { svg: trials_plot(&study) }))
    }
}

fn checked(name: &str) -> Result<&str, Fault> {
    match names::ids(name, "studies/-") {
        Ok(_) => Ok(name),
        Err(error) => Err(Fault::invalid("name", error.to_string())),
    }
}
