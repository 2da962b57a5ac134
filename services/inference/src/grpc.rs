//! The handlers: validate, hand to the engine, send what it writes; and the resources of this service.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use tidemill_chassis::Fault;
use tidemill_platform::{event, fault_of_resources};
use tidemill_proto::event::v1::DeploymentCreated;
use tidemill_proto::inference::v1::inference_service_server::InferenceService;
use tidemill_proto::inference::v1::{
    Answer, CreateDeploymentRequest, Deployment, GenerateRequest, GenerateResponse, GenerateStreamResponse,
    GetAnswerRequest, GetDeploymentRequest, ListAnswersRequest, ListAnswersResponse, ListDeploymentsRequest,
    ListDeploymentsResponse, deployment,
};
use tidemill_proto::{names, topics};
use tidemill_resources::{Collection, ListPage};
use tonic::{Code, Request, Response, Status};

use crate::fleet::Fleet;
use crate::generation::{Generation, Piece};
use crate::told::{self, Told};
use crate::validate::validate;

pub(crate) struct Handlers {
    pub(crate) fleet: Arc<Fleet>,
    pub(crate) answers: Collection<Answer>,
    pub(crate) deployments: Collection<Deployment>,
}

impl Handlers {
    async fn start(&self, request: GenerateRequest) -> Result<Generation, Fault> {
        let served = self.fleet.find(&request.model).await?;
        let model = served.clone();
        let operation = told::operation(&request);
        // Tokenizing computes for as long as the prompt is long.
        let valid = tokio::task::spawn_blocking(move || validate(request, &model.loaded)).await;
        let valid = valid.map_err(Fault::internal)??;
        let name = format!("answers/{}", valid.answer_id);
        match self.answers.get(&name).await {
            Err(tidemill_resources::Error::NotFound(_)) => {}
            Err(error) => return Err(fault_of_resources(error)),
            Ok(_) => return Err(Fault::new(Code::AlreadyExists, "ALREADY_EXISTS", format!("{name} exists already"))),
        }
        let told = Told::begin(operation, &served, &valid.job);
        Generation::start(valid, &served, self.answers.clone(), told)
    }
}

#[tonic::async_trait]
impl InferenceService for Handlers {
    async fn generate(&self, request: Request<GenerateRequest>) -> Result<Response<GenerateResponse>, Status> {
        let mut generation = self.start(request.into_inner()).await?;
        let mut text = String::new();
        loop {
            match generation.next().await? {
                Piece::Text(piece) => text.push_str(&piece),
                Piece::Last(piece, receipt) => {
                    text.push_str(&piece);
                    return Ok(Response::new(GenerateResponse { answer: Some(*receipt), text }));
                }
            }
        }
    }

    type GenerateStreamStream = BoxStream<'static, Result<GenerateStreamResponse, Status>>;

    async fn generate_stream(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStreamStream>, Status> {
        let generation = self.start(request.into_inner()).await?;
        // Whoever leaves the stream drops it, and with it the generation: no task of its own keeps the work alive.
        let pieces = futures::stream::try_unfold(Some(generation), async |generation| {
            let Some(mut generation) = generation else { return Ok::<_, Status>(None) };
            let answer = generation.name().to_owned();
            Ok(Some(match generation.next().await? {
                Piece::Text(text) => (GenerateStreamResponse { answer, text, ..Default::default() }, Some(generation)),
                Piece::Last(text, receipt) => {
                    let finish_reason = receipt.finish_reason.clone();
                    (GenerateStreamResponse { answer, text, finish_reason, receipt: Some(receipt) }, None)
                }
            }))
        });
        Ok(Response::new(pieces.boxed()))
    }

    async fn get_answer(&self, request: Request<GetAnswerRequest>) -> Result<Response<Answer>, Status> {
        let answer = self.answers.get(&request.into_inner().name).await.map_err(fault_of_resources)?;
        Ok(Response::new(answer))
    }

    async fn list_answers(
        &self,
        request: Request<ListAnswersRequest>,
    ) -> Result<Response<ListAnswersResponse>, Status> {
        let ListAnswersRequest { page_size, page_token } = request.into_inner();
        let page = self.answers.list(ListPage { page_size, page_token, ..ListPage::default() }).await;
        let page = page.map_err(fault_of_resources)?;
        Ok(Response::new(ListAnswersResponse { answers: page.items, next_page_token: page.next_page_token }))
    }

    async fn create_deployment(
        &self,
        request: Request<CreateDeploymentRequest>,
    ) -> Result<Response<Deployment>, Status> {
        let CreateDeploymentRequest { deployment_id, deployment, request_id } = request.into_inner();
        let given = deployment.unwrap_or_default();
        let id = match deployment_id {
            // Derived from the request id, so that a retry without an id finds the first deployment.
            id if id.is_empty() && !request_id.is_empty() => {
                uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, request_id.as_bytes()).simple().to_string()
            }
            id if id.is_empty() => uuid::Uuid::now_v7().simple().to_string(),
            id => id,
        };
        let mut wrong = Vec::new();
        if let Err(error) = names::check_id(&id) {
            wrong.push(("deployment_id".to_owned(), error.to_string()));
        }
        match names::ids(&given.model, "models/-") {
            Ok(ids) if ids == ["-"] => wrong.push(("deployment.model".to_owned(), "name one model".to_owned())),
            Ok(_) => {}
            Err(error) => wrong.push(("deployment.model".to_owned(), error.to_string())),
        }
        if let Err(error) = names::check_id(&given.alias) {
            wrong.push(("deployment.alias".to_owned(), error.to_string()));
        }
        if !wrong.is_empty() {
            return Err(Fault::invalid_fields(wrong).into());
        }
        let mut deployment = Deployment {
            name: format!("deployments/{id}"),
            labels: given.labels,
            model: given.model,
            alias: given.alias,
            detail: "just created".to_owned(),
            ..Deployment::default()
        };
        deployment.set_status(deployment::Status::Waiting);
        let created = DeploymentCreated { deployment: deployment.name.clone() };
        let events = vec![event(topics::DEPLOYMENT_EVENTS, &deployment.name, &created)];
        let request_id = (!request_id.is_empty()).then_some(request_id.as_str());
        let (deployment, _created) =
            self.deployments.create(&deployment, request_id, events).await.map_err(fault_of_resources)?;
        self.fleet.ring();
        Ok(Response::new(deployment))
    }

    async fn get_deployment(&self, request: Request<GetDeploymentRequest>) -> Result<Response<Deployment>, Status> {
        let deployment = self.deployments.get(&request.into_inner().name).await.map_err(fault_of_resources)?;
        Ok(Response::new(deployment))
    }

    async fn list_deployments(
        &self,
        request: Request<ListDeploymentsRequest>,
    ) -> Result<Response<ListDeploymentsResponse>, Status> {
        let ListDeploymentsRequest { page_size, page_token } = request.into_inner();
        let page = self.deployments.list(ListPage { page_size, page_token, ..ListPage::default() }).await;
        let page = page.map_err(fault_of_resources)?;
        Ok(Response::new(ListDeploymentsResponse { deployments: page.items, next_page_token: page.next_page_token }))
    }
}
