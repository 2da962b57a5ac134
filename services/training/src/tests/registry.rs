//! A registry that takes notes: it knows one model, and every version is its first.

use std::sync::{Arc, Mutex};

use futures::future::BoxFuture;
use prost::Message;
use tidemill_chassis::transport::{Channel, local};
use tidemill_proto::registry::v1::registry_service_server::{RegistryService, RegistryServiceServer};
use tidemill_proto::registry::v1::*;
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// A method and its encoded request.
type Call = (&'static str, Vec<u8>);

/// Calls so far. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Registry(Arc<Mutex<Vec<Call>>>);

impl Registry {
    pub(super) fn channel(&self) -> Channel {
        local(Routes::new(RegistryServiceServer::new(self.clone())))
    }

    pub(super) fn calls<M: Message + Default>(&self, method: &str) -> Vec<M> {
        let calls = self.0.lock().unwrap();
        let of_method = calls.iter().filter(|(name, _)| *name == method);
        of_method.map(|(_, bytes)| M::decode(&bytes[..]).unwrap()).collect()
    }

    fn note(&self, method: &'static str, request: &impl Message) {
        self.0.lock().unwrap().push((method, request.encode_to_vec()));
    }
}

macro_rules! unused {
    ($($method:ident($request:ty) -> $response:ty;)*) => {$(
        fn $method<'a, 'b>(&'a self, _: Request<$request>) -> BoxFuture<'b, Result<Response<$response>, Status>>
        where
            'a: 'b,
        {
            Box::pin(async { Err(Status::unimplemented("training does not call this")) })
        }
    )*};
}

impl RegistryService for Registry {
    fn get_model<'a, 'b>(&'a self, request: Request<GetModelRequest>) -> BoxFuture<'b, Result<Response<Model>, Status>>
    where
        'a: 'b,
    {
        let name = request.into_inner().name;
        Box::pin(async move {
            match name.as_str() {
                "models/small" => Ok(Response::new(Model { name, ..Model::default() })),
                _ => Err(Status::not_found(format!("{name} does not exist"))),
            }
        })
    }

    fn create_model_version<'a, 'b>(
        &'a self,
        request: Request<CreateModelVersionRequest>,
    ) -> BoxFuture<'b, Result<Response<ModelVersion>, Status>>
    where
        'a: 'b,
    {
        let request = request.into_inner();
        self.note("CreateModelVersion", &request);
        let name = format!("{}/versions/1", request.parent);
        Box::pin(async move { Ok(Response::new(ModelVersion { name, ..request.model_version.unwrap_or_default() })) })
    }

    fn record_lineage<'a, 'b>(
        &'a self,
        request: Request<RecordLineageRequest>,
    ) -> BoxFuture<'b, Result<Response<RecordLineageResponse>, Status>>
    where
        'a: 'b,
    {
        self.note("RecordLineage", request.get_ref());
        Box::pin(async { Ok(Response::new(RecordLineageResponse {})) })
    }

    unused! {
        create_model(CreateModelRequest) -> Model;
        list_models(ListModelsRequest) -> ListModelsResponse;
        get_model_version(GetModelVersionRequest) -> ModelVersion;
        list_model_versions(ListModelVersionsRequest) -> ListModelVersionsResponse;
        record_evaluation(RecordEvaluationRequest) -> ModelVersion;
        create_objective(CreateObjectiveRequest) -> Objective;
        get_objective(GetObjectiveRequest) -> Objective;
        list_objectives(ListObjectivesRequest) -> ListObjectivesResponse;
        promote_model_version(PromoteModelVersionRequest) -> PromoteModelVersionResponse;
        get_alias(GetAliasRequest) -> Alias;
        list_aliases(ListAliasesRequest) -> ListAliasesResponse;
        get_lineage(GetLineageRequest) -> GetLineageResponse;
    }
}
