//! One running service on a temporary data directory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use prost::Message;
use tidemill_chassis::transport::Channel;
use tidemill_chassis::{Service, Settings, server};
use tidemill_dataset::{Example, RawAnnotations, Record, RecordIndex, RowType, ShardWriter};
use tidemill_platform::Platform;
use tidemill_proto::preprocessing::v1::preprocessing_job::Input;
use tidemill_proto::preprocessing::v1::preprocessing_service_client::PreprocessingServiceClient;
use tidemill_proto::preprocessing::v1::*;
use tidemill_proto::registry::v1::RecordLineageRequest;
use tidemill_proto::r#type::v1::recipe::{self, step};
use tidemill_proto::r#type::v1::tokenizer_spec::{ByteLevelBpe, Tokenizer};
use tidemill_proto::r#type::v1::{Recipe, Split, TokenizerSpec};
use tokio_util::sync::CancellationToken;

pub(super) struct Bench {
    pub(super) platform: Platform,
    pub(super) client: PreprocessingServiceClient<Channel>,
    pub(super) lineage: Arc<Mutex<Vec<RecordLineageRequest>>>,
    folder: tempfile::TempDir,
    stop: CancellationToken,
}

impl Bench {
    pub(super) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        let text = format!("[platform]\ndata_dir = {data:?}\n[server]\ngrpc_address = \"127.0.0.1:0\"\n");
        let layers = [tidemill_platform::DEFAULTS];
        let settings = Settings::from_layers(&layers, Some(("test".to_owned(), text)), BTreeMap::new()).unwrap();
        let platform = Platform::connect(&settings).await.unwrap();
        let lineage = Arc::default();
        platform.clients.add("registry", registry(Arc::clone(&lineage)));
        let service = crate::build(&settings, &platform).unwrap();
        platform.clients.add("preprocessing", service.local_channel().unwrap());
        let bound = server::bind(&settings.section("server").unwrap(), false).await.unwrap();
        let stop = CancellationToken::new();
        let relay = Service::new("relay").task(platform.relay());
        tokio::spawn(bound.serve(vec![service, relay], stop.clone()));
        Self { client: platform.clients.preprocessing(), platform, lineage, folder, stop }
    }

    /// A raw dataset version, as ingestion stores it.
    pub(super) async fn raw(&self, records: &[Record], feedback: bool) -> String {
        self.stored(records, feedback, None).await
    }

    /// A raw dataset version of rows, given as JSON.
    pub(super) async fn rows(&self, rows: &[serde_json::Value]) -> String {
        let rows: Vec<Example> = rows.iter().map(|row| Example::from_json(row).unwrap()).collect();
        let records: Vec<Record> = rows.iter().map(|row| Record::new("x", row.to_json(), BTreeMap::new())).collect();
        self.stored(&records, false, Some(rows[0].row_type())).await
    }

    async fn stored(&self, records: &[Record], feedback: bool, row_type: Option<RowType>) -> String {
        let folder = tempfile::tempdir_in(self.folder.path()).unwrap();
        let mut shards = ShardWriter::create(folder.path().join("data")).unwrap();
        records.iter().for_each(|record| shards.push(record.clone()).unwrap());
        shards.finish().unwrap();
        let index = RecordIndex::of(records.iter().map(|record| record.id));
        std::fs::write(folder.path().join("records.index"), index.bytes()).unwrap();
        let source_uri = if feedback { "feedback" } else { "file:///texts" }.to_owned();
        let annotations =
            RawAnnotations { record_count: records.len() as u64, source_uri, row_type, ..Default::default() };
        let stored =
            self.platform.artifacts.put_directory(folder.path(), "dataset", vec![], annotations.to_map()).await;
        stored.unwrap().to_string()
    }

    pub(super) async fn create(&mut self, job: PreprocessingJob) -> Result<PreprocessingJob, tonic::Status> {
        let request = CreatePreprocessingJobRequest { preprocessing_job: Some(job), ..Default::default() };
        Ok(self.client.create_preprocessing_job(request).await?.into_inner())
    }

    /// Runs a job to its end.
    pub(super) async fn run(&mut self, inputs: &[(&str, i32)], recipe: Recipe) -> PreprocessingJob {
        let job = self.create(job(inputs, recipe)).await.unwrap();
        self.end(&job.name).await
    }

    pub(super) async fn end(&mut self, name: &str) -> PreprocessingJob {
        let request = WatchPreprocessingJobRequest { name: name.to_owned() };
        let mut changes = self.client.watch_preprocessing_job(request).await.unwrap().into_inner();
        let mut last = None;
        while let Some(change) = changes.message().await.unwrap() {
            last = Some(change);
        }
        last.unwrap()
    }

    pub(super) async fn fates(&mut self, job: &PreprocessingJob, filter: &str) -> Vec<RecordFate> {
        let mut fates = Vec::new();
        let mut page_token = String::new();
        loop {
            let (parent, filter) = (job.name.clone(), filter.to_owned());
            let request = ListRecordFatesRequest { parent, filter, page_size: 7, page_token };
            let page = self.client.list_record_fates(request).await.unwrap().into_inner();
            assert!(page.record_fates.len() <= 7);
            fates.extend(page.record_fates);
            if page.next_page_token.is_empty() {
                return fates;
            }
            page_token = page.next_page_token;
        }
    }

    /// One file of an artifact.
    pub(super) async fn file(&self, digest: &str, path: &str) -> Bytes {
        self.platform.artifacts.get_entry(&digest.parse().unwrap(), path).await.unwrap()
    }
}

pub(super) fn job(inputs: &[(&str, i32)], recipe: Recipe) -> PreprocessingJob {
    let input = |&(digest, repeat): &(&str, i32)| Input { digest: digest.to_owned(), repeat };
    PreprocessingJob { inputs: inputs.iter().map(input).collect(), recipe: Some(recipe), ..Default::default() }
}

/// All four steps with usual values, and a small BPE.
pub(super) fn recipe() -> Recipe {
    let steps = [
        step::Step::Normalize(recipe::Normalize::default()),
        step::Step::Quality(recipe::Quality::default()),
        step::Step::Deduplicate(recipe::Deduplicate::default()),
        step::Step::Redact(recipe::Redact::default()),
    ];
    Recipe {
        steps: steps.map(|step| recipe::Step { step: Some(step) }).into(),
        split: Some(Split { validation_ratio: 0.1, test_ratio: 0.1 }),
        tokenizer: tokenizer(Tokenizer::ByteLevelBpe(ByteLevelBpe { vocabulary_size: 300 })),
    }
}

pub(super) fn tokenizer(tokenizer: Tokenizer) -> Option<TokenizerSpec> {
    Some(TokenizerSpec { tokenizer: Some(tokenizer) })
}

/// A record whose text is unlike that of any other number.
pub(super) fn record(number: usize) -> Record {
    let words = (0..80).map(|word| format!("word{} ", (number * 7919 + word * 104_729) % 100_003));
    Record::new(format!("{number}.txt"), words.collect::<String>(), BTreeMap::new())
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
