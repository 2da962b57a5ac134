//! Handlers: check the request, call the domain, map errors.

use futures::StreamExt;
use futures::stream::BoxStream;
use tidemill_chassis::Fault;
use tidemill_platform::{Jobs, Platform, fault_of_resources};
use tidemill_proto::names;
use tidemill_proto::pipeline::v1::pipeline_service_server::PipelineService;
use tidemill_proto::pipeline::v1::*;
use tidemill_resources::{Collection, ListPage, OutboxEvent};
use tonic::{Request, Response, Status};

use crate::feedback::Feedback;
use crate::runs::Runs;
use crate::spec;

pub(crate) struct Handlers {
    pipelines: Collection<Pipeline>,
    jobs: Jobs<PipelineRun>,
    runs: Runs,
    feedback: Feedback,
}

impl Handlers {
    pub(crate) fn new(platform: &Platform, jobs: Jobs<PipelineRun>, runs: Runs, feedback: Feedback) -> Self {
        Self { pipelines: platform.collection(), jobs, runs, feedback }
    }
}

/// The document of a pipeline, if it is as it must be and belongs to `id`.
fn checked(pipeline: Option<&Pipeline>, id_field: &str, id: &str) -> Result<PipelineSpec, Fault> {
    let pipeline = pipeline.ok_or_else(|| Fault::invalid("pipeline", "it is required"))?;
    let Some(document) = &pipeline.spec else { return Err(Fault::invalid("spec", "it is required")) };
    let mut wrong = spec::mistakes(document);
    if !id.is_empty() && id != document.id {
        wrong.push((id_field.to_owned(), format!("{id:?} is not the document's id {:?}", document.id)));
    }
    if wrong.is_empty() { Ok(document.clone()) } else { Err(Fault::invalid_fields(wrong)) }
}

/// Checks the name of one pipeline.
fn one_pipeline(field: &str, name: &str) -> Result<(), Fault> {
    match names::ids(name, "pipelines/-") {
        Err(error) => Err(Fault::invalid(field, error.to_string())),
        Ok(ids) if ids == ["-"] => Err(Fault::invalid(field, "it names many; name one")),
        Ok(_) => Ok(()),
    }
}

#[tonic::async_trait]
impl PipelineService for Handlers {
    async fn create_pipeline(&self, request: Request<CreatePipelineRequest>) -> Result<Response<Pipeline>, Status> {
        let CreatePipelineRequest { pipeline_id, pipeline, request_id } = request.into_inner();
        let spec = checked(pipeline.as_ref(), "pipeline_id", &pipeline_id)?;
        let labels = pipeline.map(|pipeline| pipeline.labels).unwrap_or_default();
        let name = format!("pipelines/{}", spec.id);
        let pipeline = Pipeline { name, labels, spec: Some(spec), ..Pipeline::default() };
        let created = self.pipelines.create(&pipeline, Some(&request_id), Vec::new()).await;
        Ok(Response::new(created.map_err(fault_of_resources)?.0))
    }

    async fn update_pipeline(&self, request: Request<UpdatePipelineRequest>) -> Result<Response<Pipeline>, Status> {
        let pipeline = request.into_inner().pipeline;
        let name = pipeline.as_ref().map(|pipeline| pipeline.name.clone()).unwrap_or_default();
        if pipeline.is_some() {
            one_pipeline("pipeline.name", &name)?;
        }
        let spec = checked(pipeline.as_ref(), "pipeline.name", names::last_id(&name))?;
        let pipeline = pipeline.unwrap_or_default();
        let updated = self
            .pipelines
            .modify(&name, |present: &mut Pipeline| {
                if !pipeline.etag.is_empty() && pipeline.etag != present.etag {
                    return Err(tidemill_resources::Error::Conflict(name.clone()));
                }
                present.labels.clone_from(&pipeline.labels);
                present.spec = Some(spec.clone());
                Ok(Vec::<OutboxEvent>::new())
            })
            .await
            .map_err(fault_of_resources)?;
        // A lower threshold may be reached already.
        self.feedback.begin_if_due(&name).await?;
        Ok(Response::new(updated))
    }

    async fn get_pipeline(&self, request: Request<GetPipelineRequest>) -> Result<Response<Pipeline>, Status> {
        let name = request.into_inner().name;
        Ok(Response::new(self.pipelines.get(&name).await.map_err(fault_of_resources)?))
    }

    async fn list_pipelines(
        &self,
        request: Request<ListPipelinesRequest>,
    ) -> Result<Response<ListPipelinesResponse>, Status> {
        let ListPipelinesRequest { page_size, page_token } = request.into_inner();
        let page = ListPage { page_size, page_token, ..ListPage::default() };
        let page = self.pipelines.list(page).await.map_err(fault_of_resources)?;
        Ok(Response::new(ListPipelinesResponse { pipelines: page.items, next_page_token: page.next_page_token }))
    }

    async fn create_pipeline_run(
        &self,
        request: Request<CreatePipelineRunRequest>,
    ) -> Result<Response<PipelineRun>, Status> {
        let CreatePipelineRunRequest { parent, pipeline_run_id, pipeline_run, request_id } = request.into_inner();
        one_pipeline("parent", &parent)?;
        if !pipeline_run_id.is_empty() {
            return Err(Fault::invalid("pipeline_run_id", "runs are numbered by the server; leave it empty").into());
        }
        let labels = pipeline_run.map(|run| run.labels).unwrap_or_default();
        Ok(Response::new(self.runs.request(&parent, labels, &request_id).await?))
    }

    async fn get_pipeline_run(&self, request: Request<GetPipelineRunRequest>) -> Result<Response<PipelineRun>, Status> {
        Ok(Response::new(self.jobs.get(&request.into_inner().name).await?))
    }

    async fn list_pipeline_runs(
        &self,
        request: Request<ListPipelineRunsRequest>,
    ) -> Result<Response<ListPipelineRunsResponse>, Status> {
        let ListPipelineRunsRequest { parent, page_size, page_token } = request.into_inner();
        names::ids(&parent, "pipelines/-").map_err(|error| Fault::invalid("parent", error.to_string()))?;
        let any = names::last_id(&parent) == "-";
        let name_prefix = if any { String::new() } else { format!("{parent}/runs/") };
        let page = ListPage { name_prefix, page_size, page_token, arguments_hash: parent };
        let page = self.jobs.list(page).await?;
        let next_page_token = page.next_page_token;
        Ok(Response::new(ListPipelineRunsResponse { pipeline_runs: page.items, next_page_token }))
    }

    type WatchPipelineRunStream = BoxStream<'static, Result<PipelineRun, Status>>;

    async fn watch_pipeline_run(
        &self,
        request: Request<WatchPipelineRunRequest>,
    ) -> Result<Response<Self::WatchPipelineRunStream>, Status> {
        Ok(Response::new(self.jobs.watch(&request.into_inner().name).await?.boxed()))
    }

    async fn cancel_pipeline_run(
        &self,
        request: Request<CancelPipelineRunRequest>,
    ) -> Result<Response<PipelineRun>, Status> {
        Ok(Response::new(self.jobs.cancel(&request.into_inner().name).await?))
    }
}
