//! Handlers: check the request, call the domain, map errors.

use tidemill_chassis::Fault;
use tidemill_platform::{Platform, fault_of_resources};
use tidemill_proto::names;
use tidemill_proto::registry::v1::registry_service_server::RegistryService;
use tidemill_proto::registry::v1::*;
use tidemill_resources::ListPage;
use tonic::{Request, Response, Status};

use crate::error;
use crate::lineage::Lineage;
use crate::models::Models;
use crate::objectives::Objectives;
use crate::promote::Promotions;
use crate::violations::Violations;

pub(crate) struct Handlers {
    models: Models,
    objectives: Objectives,
    promotions: Promotions,
    lineage: Lineage,
}

impl Handlers {
    pub(crate) fn new(platform: &Platform) -> Self {
        Self {
            models: Models::new(platform),
            objectives: Objectives::new(platform),
            promotions: Promotions::new(platform),
            lineage: Lineage::new(platform),
        }
    }
}

/// An answer, or the fault as a status.
fn answer<T>(result: error::Result<T>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|error| Fault::from(error).into())
}

/// Which page of the resources in `collection` below `parent`.
fn page(parent: &str, collection: &str, page_size: i32, page_token: String) -> error::Result<ListPage> {
    let mut name_prefix = String::new();
    if !parent.is_empty() || collection.contains('/') {
        let mut wrong = Violations::default();
        if let Err(error) = names::ids(parent, "models/-") {
            wrong.add("parent", error.to_string());
        }
        wrong.check()?;
        if names::last_id(parent) != "-" {
            name_prefix = format!("{parent}/{}/", names::last_id(collection));
        }
    }
    Ok(ListPage { name_prefix, page_size, page_token, arguments_hash: parent.to_owned() })
}

fn check_version(request: &CreateModelVersionRequest) -> error::Result<()> {
    let mut wrong = Violations::default();
    wrong.name("parent", &request.parent, "models/-");
    if !request.model_version_id.is_empty() {
        wrong.add("model_version_id", "versions are numbered by the server; leave it empty");
    }
    match &request.model_version {
        None => wrong.add("model_version", "it is required"),
        Some(version) => {
            wrong.digest("model_version.digest", &version.digest);
            let digests = [
                ("model_version.dataset_digest", &version.dataset_digest),
                ("model_version.tokenizer_digest", &version.tokenizer_digest),
                ("model_version.base_model_digest", &version.base_model_digest),
            ];
            for (field, digest) in digests.into_iter().filter(|(_, digest)| !digest.is_empty()) {
                wrong.digest(field, digest);
            }
            if version.parameter_count < 0 {
                wrong.add("model_version.parameter_count", format!("{} is negative", version.parameter_count));
            }
        }
    }
    wrong.check()
}

fn check_evaluation(request: &RecordEvaluationRequest) -> error::Result<()> {
    let mut wrong = Violations::default();
    wrong.name("name", &request.name, "models/-/versions/-");
    match &request.result {
        None => wrong.add("result", "it is required"),
        Some(result) => {
            wrong.name("result.evaluation", &result.evaluation, "evaluations/-");
            wrong.digest("result.model_digest", &result.model_digest);
            wrong.digest("result.dataset_digest", &result.dataset_digest);
            wrong.digest("result.suite_digest", &result.suite_digest);
            if result.metrics.is_empty() {
                wrong.add("result.metrics", "it is required");
            }
        }
    }
    wrong.check()
}

fn check_promotion(request: &PromoteModelVersionRequest) -> error::Result<()> {
    let mut wrong = Violations::default();
    wrong.name("name", &request.name, "models/-/versions/-");
    wrong.id("alias", &request.alias);
    wrong.name("objective", &request.objective, "objectives/-");
    wrong.check()
}

#[tonic::async_trait]
impl RegistryService for Handlers {
    async fn create_model(&self, request: Request<CreateModelRequest>) -> Result<Response<Model>, Status> {
        let CreateModelRequest { model_id, model, request_id } = request.into_inner();
        let model = model.ok_or_else(|| Fault::invalid("model", "it is required"))?;
        answer(self.models.create(model, &model_id, &request_id).await)
    }

    async fn get_model(&self, request: Request<GetModelRequest>) -> Result<Response<Model>, Status> {
        let name = request.into_inner().name;
        Ok(Response::new(self.models.models.get(&name).await.map_err(fault_of_resources)?))
    }

    async fn list_models(&self, request: Request<ListModelsRequest>) -> Result<Response<ListModelsResponse>, Status> {
        let ListModelsRequest { page_size, page_token } = request.into_inner();
        let page = page("", "models", page_size, page_token).map_err(Fault::from)?;
        let page = self.models.models.list(page).await.map_err(fault_of_resources)?;
        Ok(Response::new(ListModelsResponse { models: page.items, next_page_token: page.next_page_token }))
    }

    async fn create_model_version(
        &self,
        request: Request<CreateModelVersionRequest>,
    ) -> Result<Response<ModelVersion>, Status> {
        let request = request.into_inner();
        check_version(&request).map_err(Fault::from)?;
        answer(self.models.create_version(&request.parent, request.model_version.unwrap_or_default()).await)
    }

    async fn get_model_version(
        &self,
        request: Request<GetModelVersionRequest>,
    ) -> Result<Response<ModelVersion>, Status> {
        let name = request.into_inner().name;
        Ok(Response::new(self.models.versions.get(&name).await.map_err(fault_of_resources)?))
    }

    async fn list_model_versions(
        &self,
        request: Request<ListModelVersionsRequest>,
    ) -> Result<Response<ListModelVersionsResponse>, Status> {
        let ListModelVersionsRequest { parent, page_size, page_token } = request.into_inner();
        let page = page(&parent, "models/versions", page_size, page_token).map_err(Fault::from)?;
        let page = self.models.versions.list(page).await.map_err(fault_of_resources)?;
        let next_page_token = page.next_page_token;
        Ok(Response::new(ListModelVersionsResponse { model_versions: page.items, next_page_token }))
    }

    async fn record_evaluation(
        &self,
        request: Request<RecordEvaluationRequest>,
    ) -> Result<Response<ModelVersion>, Status> {
        let request = request.into_inner();
        check_evaluation(&request).map_err(Fault::from)?;
        answer(self.models.record_evaluation(&request.name, request.result.unwrap_or_default()).await)
    }

    async fn create_objective(&self, request: Request<CreateObjectiveRequest>) -> Result<Response<Objective>, Status> {
        let CreateObjectiveRequest { objective_id, objective, request_id } = request.into_inner();
        let objective = objective.ok_or_else(|| Fault::invalid("objective", "it is required"))?;
        answer(self.objectives.create(objective, &objective_id, &request_id).await)
    }

    async fn get_objective(&self, request: Request<GetObjectiveRequest>) -> Result<Response<Objective>, Status> {
        let name = request.into_inner().name;
        Ok(Response::new(self.objectives.collection.get(&name).await.map_err(fault_of_resources)?))
    }

    async fn list_objectives(
        &self,
        request: Request<ListObjectivesRequest>,
    ) -> Result<Response<ListObjectivesResponse>, Status> {
        let ListObjectivesRequest { page_size, page_token } = request.into_inner();
        let page = page("", "objectives", page_size, page_token).map_err(Fault::from)?;
        let page = self.objectives.collection.list(page).await.map_err(fault_of_resources)?;
        Ok(Response::new(ListObjectivesResponse { objectives: page.items, next_page_token: page.next_page_token }))
    }

    async fn promote_model_version(
        &self,
        request: Request<PromoteModelVersionRequest>,
    ) -> Result<Response<PromoteModelVersionResponse>, Status> {
        let request = request.into_inner();
        check_promotion(&request).map_err(Fault::from)?;
        answer(self.promotions.promote(&request).await)
    }

    async fn get_alias(&self, request: Request<GetAliasRequest>) -> Result<Response<Alias>, Status> {
        let name = request.into_inner().name;
        Ok(Response::new(self.promotions.aliases.get(&name).await.map_err(fault_of_resources)?))
    }

    async fn list_aliases(
        &self,
        request: Request<ListAliasesRequest>,
    ) -> Result<Response<ListAliasesResponse>, Status> {
        let ListAliasesRequest { parent, page_size, page_token } = request.into_inner();
        let page = page(&parent, "models/aliases", page_size, page_token).map_err(Fault::from)?;
        let page = self.promotions.aliases.list(page).await.map_err(fault_of_resources)?;
        Ok(Response::new(ListAliasesResponse { aliases: page.items, next_page_token: page.next_page_token }))
    }

    async fn record_lineage(
        &self,
        request: Request<RecordLineageRequest>,
    ) -> Result<Response<RecordLineageResponse>, Status> {
        let recorded = self.lineage.record(&request.into_inner()).await;
        answer(recorded.map(|()| RecordLineageResponse {}))
    }

    async fn get_lineage(&self, request: Request<GetLineageRequest>) -> Result<Response<GetLineageResponse>, Status> {
        let request = request.into_inner();
        if request.id.is_empty() {
            return Err(Fault::invalid("id", "it is required").into());
        }
        answer(self.lineage.walk(&request).await)
    }
}
