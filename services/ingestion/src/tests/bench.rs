//! One running service on a temporary data directory.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use prost::Message;
use tidemill_chassis::transport::Channel;
use tidemill_chassis::{Service, Settings, server};
use tidemill_platform::Platform;
use tidemill_proto::ingestion::v1::dataset_version::{FeedbackSelection, Origin};
use tidemill_proto::ingestion::v1::ingestion_service_client::IngestionServiceClient;
use tidemill_proto::ingestion::v1::*;
use tidemill_proto::registry::v1::RecordLineageRequest;
use tidemill_proto::r#type::v1::{ConsentBasis, RecordFormat, SourceSpec};
use tokio_util::sync::CancellationToken;

pub(super) struct Bench {
    pub(super) platform: Platform,
    pub(super) client: IngestionServiceClient<Channel>,
    pub(super) lineage: Arc<Mutex<Vec<RecordLineageRequest>>>,
    pub(super) folder: tempfile::TempDir,
    stop: CancellationToken,
}

impl Bench {
    pub(super) async fn start() -> Self {
        Self::with("").await
    }

    /// `extra`: more keys of section `[ingestion]`.
    pub(super) async fn with(extra: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (data, cache) = (folder.path().join("data"), folder.path().join("cache"));
        let text = format!(
            "[platform]\ndata_dir = {data:?}\n[server]\ngrpc_address = \"127.0.0.1:0\"\n[ingestion]\ncache_dir = {cache:?}\n{extra}"
        );
        let layers = [tidemill_platform::DEFAULTS, crate::DEFAULTS];
        let settings = Settings::from_layers(&layers, Some(("test".to_owned(), text)), BTreeMap::new()).unwrap();
        let platform = Platform::connect(&settings).await.unwrap();
        let lineage = Arc::default();
        platform.clients.add("registry", registry(Arc::clone(&lineage)));
        let service = crate::build(&settings, &platform).unwrap();
        platform.clients.add("ingestion", service.local_channel().unwrap());
        let bound = server::bind(&settings.section("server").unwrap(), false).await.unwrap();
        let stop = CancellationToken::new();
        let relay = Service::new("relay").task(platform.relay());
        tokio::spawn(bound.serve(vec![service, relay], stop.clone()));
        Self { client: platform.clients.ingestion(), platform, lineage, folder, stop }
    }

    /// A source over a path, with what every source needs.
    pub(super) fn spec(path: &Path, format: RecordFormat) -> SourceSpec {
        SourceSpec {
            uri: format!("file://{}", path.display()),
            format: format.into(),
            license: "CC0-1.0".to_owned(),
            consent_basis: ConsentBasis::PublicDomain.into(),
            ..SourceSpec::default()
        }
    }

    pub(super) async fn create(&mut self, spec: SourceSpec) -> Result<DataSource, tonic::Status> {
        let data_source = Some(DataSource { spec: Some(spec), ..DataSource::default() });
        let request = CreateDataSourceRequest { data_source, ..Default::default() };
        Ok(self.client.create_data_source(request).await?.into_inner())
    }

    /// Reads a source to the end of the job.
    pub(super) async fn ingest(&mut self, spec: SourceSpec) -> DatasetVersion {
        let source = self.create(spec).await.unwrap();
        self.version(Origin::DataSource(source.name)).await
    }

    pub(super) async fn ingest_feedback(&mut self, names: Vec<String>) -> DatasetVersion {
        self.version(Origin::Feedback(FeedbackSelection { feedback: names })).await
    }

    pub(super) async fn begin(&mut self, origin: Origin) -> DatasetVersion {
        let request = CreateDatasetRequest { dataset: Some(Dataset::default()), ..Default::default() };
        let dataset = self.client.create_dataset(request).await.unwrap().into_inner();
        let request = CreateDatasetVersionRequest {
            parent: dataset.name,
            dataset_version: Some(DatasetVersion { origin: Some(origin), ..Default::default() }),
            ..Default::default()
        };
        self.client.create_dataset_version(request).await.unwrap().into_inner()
    }

    async fn version(&mut self, origin: Origin) -> DatasetVersion {
        let version = self.begin(origin).await;
        self.end(&version.name).await
    }

    pub(super) async fn end(&mut self, name: &str) -> DatasetVersion {
        let request = WatchDatasetVersionRequest { name: name.to_owned() };
        let mut changes = self.client.watch_dataset_version(request).await.unwrap().into_inner();
        let mut last = None;
        while let Some(change) = changes.message().await.unwrap() {
            last = Some(change);
        }
        last.unwrap()
    }

    pub(super) async fn records(&mut self, version: &DatasetVersion, filter: &str) -> Vec<Record> {
        let mut records = Vec::new();
        let mut page_token = String::new();
        loop {
            let (parent, filter) = (version.name.clone(), filter.to_owned());
            let request = ListRecordsRequest { parent, filter, page_size: 2, page_token };
            let page = self.client.list_records(request).await.unwrap().into_inner();
            assert!(page.records.len() <= 2);
            records.extend(page.records);
            if page.next_page_token.is_empty() {
                return records;
            }
            page_token = page.next_page_token;
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Answers every call with an empty message, and keeps what RecordLineage was sent.
fn registry(told: Arc<Mutex<Vec<RecordLineageRequest>>>) -> Channel {
    Channel::new(tower::service_fn(move |request: http::Request<tonic::body::Body>| {
        let told = told.clone();
        async move {
            assert!(request.uri().path().ends_with("/RecordLineage"), "{}", request.uri());
            let body = request.into_body().collect().await?.to_bytes();
            told.lock().unwrap().push(RecordLineageRequest::decode(&body[5..]).unwrap());
            let answer = http::Response::builder().header("content-type", "application/grpc");
            let body = Full::new(Bytes::from_static(&[0; 5]));
            let trailers = http::HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                http::HeaderValue::from_static("0"),
            )]);
            let body = body.with_trailers(async move { Some(Ok(trailers)) });
            Ok::<_, tonic::Status>(answer.body(tonic::body::Body::new(body)).unwrap())
        }
    }))
}
