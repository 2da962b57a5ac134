//! A world to test in: the service over a platform in a temporary folder, a registry that says what the test wants, tiny models.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tidemill_artifacts::Digest;
use tidemill_chassis::server::{Server, bind};
use tidemill_chassis::transport::{self, Channel};
use tidemill_chassis::{Service, Settings};
use tidemill_models::{Config, LlamaConfig, Model};
use tidemill_platform::Platform;
use tidemill_proto::inference::v1::inference_service_client::InferenceServiceClient;
use tidemill_proto::inference::v1::{Deployment, GetDeploymentRequest, deployment};
use tidemill_proto::registry::v1::registry_service_server::{RegistryService, RegistryServiceServer};
use tidemill_proto::registry::v1::*;
use tidemill_text::{ChatTemplate, SPECIAL_TOKENS, Tokenizer, tokenizer_config};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Request, Response, Status};

use crate::engine::Limits;
use crate::fleet::Fleet;

pub(super) const CONTEXT: usize = 128;
pub(super) const LIMITS: Limits = Limits { running: 16, waiting: 64, prefill: 8, threads: 1 };
const TEXT: &str =
    "Fellow citizens of the Senate and of the House: the state of the union is strong, and the people are free.";

/// Aliases as the test sets them.
#[derive(Clone, Default)]
pub(super) struct Registry(Arc<Mutex<BTreeMap<String, Alias>>>);

impl Registry {
    /// Points `models/tiny/aliases/champion` somewhere.
    pub(super) fn point(&self, version: u32, digest: &Digest) {
        let name = "models/tiny/aliases/champion".to_owned();
        let model_version = format!("models/tiny/versions/{version}");
        let alias = Alias { name: name.clone(), model_version, digest: digest.to_string(), ..Alias::default() };
        self.0.lock().unwrap().insert(name, alias);
    }

    async fn alias(&self, request: Request<GetAliasRequest>) -> Result<Response<Alias>, Status> {
        let name = request.into_inner().name;
        let found = self.0.lock().unwrap().get(&name).cloned();
        found.map(Response::new).ok_or_else(|| Status::not_found(format!("{name} does not exist")))
    }
}

macro_rules! only_get_alias {
    ($($other:ident($request:ty) -> $response:ty;)*) => {
        #[tonic::async_trait]
        impl RegistryService for Registry {
            async fn get_alias(&self, request: Request<GetAliasRequest>) -> Result<Response<Alias>, Status> {
                self.alias(request).await
            }
            $(async fn $other(&self, _request: Request<$request>) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented("inference only asks for aliases"))
            })*
        }
    };
}

only_get_alias! {
    create_model(CreateModelRequest) -> tidemill_proto::registry::v1::Model;
    get_model(GetModelRequest) -> tidemill_proto::registry::v1::Model;
    list_models(ListModelsRequest) -> ListModelsResponse;
    create_model_version(CreateModelVersionRequest) -> ModelVersion;
    get_model_version(GetModelVersionRequest) -> ModelVersion;
    list_model_versions(ListModelVersionsRequest) -> ListModelVersionsResponse;
    record_evaluation(RecordEvaluationRequest) -> ModelVersion;
    create_objective(CreateObjectiveRequest) -> Objective;
    get_objective(GetObjectiveRequest) -> Objective;
    list_objectives(ListObjectivesRequest) -> ListObjectivesResponse;
    promote_model_version(PromoteModelVersionRequest) -> PromoteModelVersionResponse;
    list_aliases(ListAliasesRequest) -> ListAliasesResponse;
    record_lineage(RecordLineageRequest) -> RecordLineageResponse;
    get_lineage(GetLineageRequest) -> GetLineageResponse;
}

/// The service, running.
pub(super) struct World {
    pub(super) registry: Registry,
    pub(super) platform: Platform,
    pub(super) fleet: Arc<Fleet>,
    pub(super) client: InferenceServiceClient<Channel>,
    pub(super) folder: tempfile::TempDir,
    pub(super) stop: CancellationToken,
    pub(super) served: tokio::task::JoinHandle<Result<(), tidemill_chassis::server::Error>>,
    _stopped_at_the_end: DropGuard,
}

impl World {
    /// The service with `limits`, without any deployment.
    pub(super) async fn new(limits: Limits) -> World {
        let folder = tempfile::tempdir().unwrap();
        let file = format!("[platform]\ndata_dir = {:?}\n", folder.path().join("data"));
        let settings = Settings::from_layers(
            &[tidemill_platform::DEFAULTS, crate::DEFAULTS],
            Some(("test.toml".to_owned(), file)),
            BTreeMap::new(),
        );
        let platform = Platform::connect(&settings.unwrap()).await.unwrap();
        let registry = Registry::default();
        let in_process = Service::new("registry").grpc(RegistryServiceServer::new(registry.clone()));
        platform.clients.add("registry", in_process.local_channel().unwrap());

        let fleet = Arc::new(Fleet::new(&platform, limits).unwrap());
        // Missed events would show only after an hour, so the tests that wait for a load test the events.
        let service = crate::serve(&platform, fleet.clone(), Duration::from_secs(3600));
        let server = Server {
            grpc_address: "127.0.0.1:0".to_owned(),
            http_address: String::new(),
            api_keys_file: String::new(),
            shutdown_grace_seconds: 5,
            max_message_bytes: 4 << 20,
            ..Server::default()
        };
        let bound = bind(&server, false).await.unwrap();
        let channel = transport::remote(&format!("http://{}", bound.grpc_address()), &Default::default()).unwrap();
        let stop = CancellationToken::new();
        let relay = Service::new("relay").task(platform.relay());
        let served = tokio::spawn(bound.serve(vec![service, relay], stop.clone()));
        let client = InferenceServiceClient::new(channel);
        World {
            registry,
            platform,
            fleet,
            client,
            folder,
            served,
            _stopped_at_the_end: stop.clone().drop_guard(),
            stop,
        }
    }

    /// The service with deployment `tiny` answering from a model of seed 1.
    pub(super) async fn serving(limits: Limits) -> World {
        let world = World::new(limits).await;
        let digest = world.store(1).await;
        world.registry.point(1, &digest);
        world.deploy("tiny").await;
        world.wait_for("tiny", |deployment| deployment.status() == deployment::Status::Ready).await;
        world
    }

    /// Writes a model with weights of a seed into the artifact store.
    pub(super) async fn store(&self, seed: u64) -> Digest {
        let folder = self.folder.path().join(format!("model-{seed}"));
        write_model(&folder, seed);
        self.platform.artifacts.put_directory(&folder, "model", Vec::new(), BTreeMap::new()).await.unwrap()
    }

    /// Creates a deployment of `models/tiny`.
    pub(super) async fn deploy(&self, id: &str) -> Deployment {
        let deployment =
            Deployment { model: "models/tiny".to_owned(), alias: "champion".to_owned(), ..Deployment::default() };
        let request = tidemill_proto::inference::v1::CreateDeploymentRequest {
            deployment_id: id.to_owned(),
            deployment: Some(deployment),
            request_id: String::new(),
        };
        self.client.clone().create_deployment(request).await.unwrap().into_inner()
    }

    /// Tells the log that an alias moved, as the registry does.
    pub(super) async fn alias_moved(&self) {
        let moved = tidemill_proto::event::v1::AliasMoved::default();
        let event =
            tidemill_platform::event(tidemill_proto::topics::ALIAS_EVENTS, "models/tiny/aliases/champion", &moved);
        let batch = tidemill_resources::Batch { writes: Vec::new(), events: vec![event] };
        self.platform.resources.commit(batch).await.unwrap();
    }

    /// Waits until a deployment is as wanted.
    pub(super) async fn wait_for(&self, id: &str, wanted: impl Fn(&Deployment) -> bool) -> Deployment {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let request = GetDeploymentRequest { name: format!("deployments/{id}") };
            let deployment = self.client.clone().get_deployment(request).await.unwrap().into_inner();
            if wanted(&deployment) {
                return deployment;
            }
            assert!(Instant::now() < deadline, "not within 30 s: {deployment:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until no sequence of a deployment's model runs or waits.
    pub(super) async fn wait_idle(&self, id: &str) {
        let served = self.fleet.find(id).await.unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while served.loaded.engine.load() > 0 {
            assert!(Instant::now() < deadline, "{} sequences are left", served.loaded.engine.load());
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// The folder of the model that `store` wrote for a seed.
    pub(super) fn model_folder(&self, seed: u64) -> PathBuf {
        self.folder.path().join(format!("model-{seed}"))
    }
}

fn write_model(folder: &Path, seed: u64) {
    std::fs::create_dir_all(folder).unwrap();
    let tokenizer = Tokenizer::train_bpe([TEXT], 300, &SPECIAL_TOKENS).unwrap();
    let config = Config::Llama(LlamaConfig {
        member: tidemill_models::LlamaMember::Llama,
        vocab_size: 320,
        hidden_size: 32,
        intermediate_size: 64,
        num_hidden_layers: 2,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 8,
        max_position_embeddings: CONTEXT as i64,
        rope: tidemill_models::Rope::default(),
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        head_norms: false,
        windows: Vec::new(),
        rms_norm_eps: 1e-5,
        tie_word_embeddings: true,
        // Large, so that greedy text of random weights does not repeat one token.
        initializer_range: 0.6,
        bos_token_id: None,
        eos_token_id: None,
    });
    let model = Model::new(config, seed, tch::Device::Cpu).unwrap();
    tidemill_models::save(&model, folder).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer.json()).unwrap();
    let template = ChatTemplate::parse(
        "test",
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    );
    let template = template.unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), tokenizer_config(&tokenizer, Some(&template), CONTEXT))
        .unwrap();
    std::fs::write(folder.join("chat_template.jinja"), template.source()).unwrap();
    std::fs::write(folder.join("generation_config.json"), r#"{"temperature": 0.9, "eos_token_id": 0}"#).unwrap();
}
