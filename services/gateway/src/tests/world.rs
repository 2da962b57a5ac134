//! A gateway on a port of its own, over doubles of the services behind it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::{self, BoxStream};
use serde_json::Value;
use tidemill_chassis::server::{Server, bind};
use tidemill_chassis::{Fault, Service, Settings};
use tidemill_platform::Platform;
use tidemill_proto::inference::v1::generate_request::Input;
use tidemill_proto::inference::v1::inference_service_server::{InferenceService, InferenceServiceServer};
use tidemill_proto::inference::v1::*;
use tidemill_proto::ingestion::v1::ingestion_service_server::{IngestionService, IngestionServiceServer};
use tidemill_proto::ingestion::v1::*;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::{Code, Request, Response, Status};

pub(super) const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Answers every prompt with the prompt's own words; some prompts make it misbehave.
#[derive(Clone, Default)]
pub(super) struct Inference {
    /// The requests that arrived.
    pub(super) requests: Arc<Mutex<Vec<GenerateRequest>>>,
    pub(super) answers: Arc<Mutex<BTreeMap<String, Answer>>>,
    /// Streams that are being written.
    pub(super) running: Arc<AtomicUsize>,
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Inference {
    fn start(
        &self,
        request: GenerateRequest,
    ) -> Result<BoxStream<'static, Result<GenerateStreamResponse, Status>>, Status> {
        self.requests.lock().unwrap().push(request.clone());
        if request.model != "tiny" {
            return Err(Fault::not_found(&request.model).into());
        }
        let sampling = request.sampling.unwrap_or_default();
        if sampling.temperature() > 2.0 {
            let wrong = vec![("sampling.temperature".to_owned(), "too hot".to_owned())];
            return Err(Fault::invalid_fields(wrong).into());
        }
        let text = match request.input {
            Some(Input::Prompt(prompt)) => prompt,
            Some(Input::Chat(chat)) => chat.messages.iter().map(|m| format!("{}: {} ", m.role, m.content)).collect(),
            None => return Err(Fault::invalid("prompt", "missing").into()),
        };
        if text == "busy" {
            return Err(Fault::exhausted("QUEUE_FULL", "full").into());
        }
        let number = self.requests.lock().unwrap().len();
        let name = format!("answers/a{number}");
        let words: Vec<String> = text.split_inclusive(' ').map(str::to_owned).collect();
        let mut receipt = Answer {
            name: name.clone(),
            model: "models/tiny".to_owned(),
            model_digest: DIGEST.to_owned(),
            prompt_tokens: 2,
            completion_tokens: words.len() as i32,
            finish_reason: "stop".to_owned(),
            ..Answer::default()
        };
        if request.store {
            (receipt.prompt, receipt.completion) = (text.clone(), text.clone());
        }
        self.answers.lock().unwrap().insert(name.clone(), receipt.clone());
        let message = move |text: String| GenerateStreamResponse { answer: name.clone(), text, ..Default::default() };
        let mut last = message(String::new());
        (last.finish_reason, last.receipt) = ("stop".to_owned(), Some(Box::new(receipt)));

        self.running.fetch_add(1, SeqCst);
        let running = Running(self.running.clone());
        let end = match text.as_str() {
            "break" => vec![Err(Status::internal("the engine is gone"))],
            _ => vec![Ok(last)],
        };
        let begin: Vec<_> = words.into_iter().map(|word| Ok(message(word))).collect();
        let stream = stream::iter(begin);
        let stream = match text.as_str() {
            "forever" => stream.chain(stream::pending()).boxed(),
            _ => stream.chain(stream::iter(end)).boxed(),
        };
        Ok(stream
            .map(move |item| {
                let _held = &running;
                item
            })
            .boxed())
    }
}

#[tonic::async_trait]
impl InferenceService for Inference {
    async fn generate(&self, _request: Request<GenerateRequest>) -> Result<Response<GenerateResponse>, Status> {
        Err(Status::unimplemented("the gateway streams"))
    }

    type GenerateStreamStream = BoxStream<'static, Result<GenerateStreamResponse, Status>>;

    async fn generate_stream(
        &self,
        request: Request<GenerateRequest>,
    ) -> Result<Response<Self::GenerateStreamStream>, Status> {
        self.start(request.into_inner()).map(Response::new)
    }

    async fn get_answer(&self, request: Request<GetAnswerRequest>) -> Result<Response<Answer>, Status> {
        let name = request.into_inner().name;
        let found = self.answers.lock().unwrap().get(&name).cloned();
        found.map(Response::new).ok_or_else(|| Fault::not_found(&name).into())
    }

    async fn list_answers(&self, _: Request<ListAnswersRequest>) -> Result<Response<ListAnswersResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn create_deployment(&self, _: Request<CreateDeploymentRequest>) -> Result<Response<Deployment>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn get_deployment(&self, _: Request<GetDeploymentRequest>) -> Result<Response<Deployment>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    /// Two pages: one deployment that answers, one that waits.
    async fn list_deployments(
        &self,
        request: Request<ListDeploymentsRequest>,
    ) -> Result<Response<ListDeploymentsResponse>, Status> {
        let second = !request.into_inner().page_token.is_empty();
        let deployment = Deployment {
            name: if second { "deployments/waiting" } else { "deployments/tiny" }.to_owned(),
            model_version: if second { "" } else { "models/tiny/versions/1" }.to_owned(),
            model_digest: if second { "" } else { DIGEST }.to_owned(),
            ..Deployment::default()
        };
        let next_page_token = if second { "" } else { "more" }.to_owned();
        Ok(Response::new(ListDeploymentsResponse { deployments: vec![deployment], next_page_token }))
    }
}

/// Takes feedback in.
#[derive(Clone, Default)]
pub(super) struct Ingestion {
    pub(super) feedback: Arc<Mutex<Vec<CreateFeedbackRequest>>>,
}

macro_rules! only_create_feedback {
    ($($other:ident($request:ty) -> $response:ty;)*) => {
        #[tonic::async_trait]
        impl IngestionService for Ingestion {
            async fn create_feedback(&self, request: Request<CreateFeedbackRequest>) -> Result<Response<Feedback>, Status> {
                let request = request.into_inner();
                self.feedback.lock().unwrap().push(request.clone());
                Ok(Response::new(Feedback { name: "feedback/f1".to_owned(), ..request.feedback.unwrap() }))
            }
            type WatchDatasetVersionStream = BoxStream<'static, Result<DatasetVersion, Status>>;
            async fn watch_dataset_version(
                &self,
                _request: Request<WatchDatasetVersionRequest>,
            ) -> Result<Response<Self::WatchDatasetVersionStream>, Status> {
                Err(Status::unimplemented("the gateway only sends feedback"))
            }
            $(async fn $other(&self, _request: Request<$request>) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented("the gateway only sends feedback"))
            })*
        }
    };
}

only_create_feedback! {
    create_data_source(CreateDataSourceRequest) -> DataSource;
    get_data_source(GetDataSourceRequest) -> DataSource;
    list_data_sources(ListDataSourcesRequest) -> ListDataSourcesResponse;
    create_dataset(CreateDatasetRequest) -> Dataset;
    get_dataset(GetDatasetRequest) -> Dataset;
    list_datasets(ListDatasetsRequest) -> ListDatasetsResponse;
    create_dataset_version(CreateDatasetVersionRequest) -> DatasetVersion;
    get_dataset_version(GetDatasetVersionRequest) -> DatasetVersion;
    list_dataset_versions(ListDatasetVersionsRequest) -> ListDatasetVersionsResponse;
    cancel_dataset_version(CancelDatasetVersionRequest) -> DatasetVersion;
    list_records(ListRecordsRequest) -> ListRecordsResponse;
    get_feedback(GetFeedbackRequest) -> Feedback;
    list_feedbacks(ListFeedbacksRequest) -> ListFeedbacksResponse;
}

/// The gateway, running.
pub(super) struct World {
    pub(super) inference: Inference,
    pub(super) ingestion: Ingestion,
    http: reqwest::Client,
    address: String,
    _folder: tempfile::TempDir,
    _stop: DropGuard,
}

/// An HTTP answer.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: u16,
    pub(super) headers: http::HeaderMap,
    pub(super) text: String,
}

impl Answered {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The error's (status, type, param, code).
    pub(super) fn error(&self) -> (u16, Value, Value, Value) {
        let error = &self.json()["error"];
        assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{self:?}");
        (self.status, error["type"].clone(), error["param"].clone(), error["code"].clone())
    }

    /// The chunks of a stream, which must end with `[DONE]`.
    pub(super) fn chunks(&self) -> Vec<Value> {
        let text = self.text.strip_suffix("data: [DONE]\n\n").unwrap_or_else(|| panic!("no end: {}", self.text));
        let events = text.split_terminator("\n\n").map(|event| event.strip_prefix("data: ").unwrap());
        events.map(|event| serde_json::from_str(event).unwrap()).collect()
    }
}

impl World {
    pub(super) async fn new() -> World {
        World::with("").await
    }

    /// A gateway with settings of its section.
    pub(super) async fn with(section: &str) -> World {
        let folder = tempfile::tempdir().unwrap();
        let file = format!("[platform]\ndata_dir = {:?}\n[gateway]\n{section}", folder.path());
        let file = Some(("test.toml".to_owned(), file));
        let settings =
            Settings::from_layers(&[tidemill_platform::DEFAULTS, crate::DEFAULTS], file, BTreeMap::new()).unwrap();
        let platform = Platform::connect(&settings).await.unwrap();
        let gateway = crate::build(&settings, &platform).unwrap();
        let (inference, ingestion) = (Inference::default(), Ingestion::default());
        let behind = Service::new("inference").grpc(InferenceServiceServer::new(inference.clone()));
        platform.clients.add("inference", behind.local_channel().unwrap());
        let behind = Service::new("ingestion").grpc(IngestionServiceServer::new(ingestion.clone()));
        platform.clients.add("ingestion", behind.local_channel().unwrap());

        let server = Server {
            grpc_address: "127.0.0.1:0".to_owned(),
            http_address: "127.0.0.1:0".to_owned(),
            api_keys_file: String::new(),
            shutdown_grace_seconds: 5,
            max_message_bytes: 64 << 10,
            ..Server::default()
        };
        let bound = bind(&server, true).await.unwrap();
        let address = format!("http://{}", bound.http_address().unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(bound.serve(vec![gateway], stop.clone()));
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build().unwrap();
        World { inference, ingestion, http, address, _folder: folder, _stop: stop.drop_guard() }
    }

    pub(super) async fn get(&self, path: &str) -> Answered {
        answered(self.http.get(format!("{}{path}", self.address))).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Answered {
        answered(self.request(path, body)).await
    }

    pub(super) fn request(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.http.post(format!("{}{path}", self.address)).json(body)
    }

    pub(super) async fn post_raw(&self, path: &str, body: impl Into<reqwest::Body>) -> Answered {
        answered(self.http.post(format!("{}{path}", self.address)).body(body)).await
    }

    /// Waits until no stream is being written.
    pub(super) async fn wait_idle(&self) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while self.inference.running.load(SeqCst) > 0 {
            assert!(tokio::time::Instant::now() < deadline, "a stream goes on without a reader");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

pub(super) async fn answered(request: reqwest::RequestBuilder) -> Answered {
    let response = request.send().await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Answered { status, headers, text: response.text().await.unwrap() }
}

#[test]
fn the_double_refuses_as_the_service_does() {
    let status = Inference::default().start(GenerateRequest::default()).err().unwrap();
    assert_eq!(status.code(), Code::NotFound);
}
