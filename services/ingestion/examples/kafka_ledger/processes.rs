//! The processes of a run: a registry, replicas of ingestion, and the broker.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use tidemill_chassis::transport::{self, Channel};
use tidemill_proto::ingestion::v1::ingestion_service_client::IngestionServiceClient;
use tidemill_proto::ingestion::v1::{
    CreateDataSourceRequest, CreateDatasetRequest, CreateDatasetVersionRequest, DataSource, Dataset, DatasetVersion,
    GetDatasetVersionRequest, ListDataSourcesRequest, dataset_version::Origin,
};
use tidemill_proto::r#type::v1::{ConsentBasis, KafkaOptions, RecordFormat, SourceSpec, State};

use crate::recipe::LARGEST;

/// A Tidemill of several processes below one folder.
pub(crate) struct Installation {
    folder: PathBuf,
    registry: Child,
    replicas: Vec<Replica>,
    environment: BTreeMap<String, String>,
}

struct Replica {
    child: Child,
    port: u16,
}

/// Where the stores are that replicas share; without a server, one file and a log for each.
#[derive(Clone, Default)]
pub(crate) struct Stores {
    pub(crate) resources_url: Option<String>,
    pub(crate) eventlog_url: Option<String>,
}

impl Installation {
    pub(crate) fn start(folder: &Path, replicas: usize, stores: &Stores) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let port = free_port()?;
        let own = BTreeMap::from([("PLATFORM__DATA_DIR".to_owned(), path(&folder.join("registry")))]);
        let registry = spawn("tidemill-registry", &folder.join("registry.log"), port, &own)?;
        let shared = |name: &str, scheme: &str| format!("{scheme}://{}", path(&folder.join(name)));
        let mut environment = BTreeMap::from([
            ("SERVICES__REGISTRY".to_owned(), format!("http://127.0.0.1:{port}")),
            ("PLATFORM__ARTIFACTS_URL".to_owned(), shared("artifacts", "file")),
            ("INGESTION__SEGMENT_SECONDS".to_owned(), "2".to_owned()),
            ("INGESTION__SEGMENT_BYTES".to_owned(), "8388608".to_owned()),
        ]);
        let resources = stores.resources_url.clone().unwrap_or_else(|| shared("resources.db", "sqlite"));
        environment.insert("PLATFORM__RESOURCES_URL".to_owned(), resources);
        if let Some(url) = &stores.eventlog_url {
            environment.insert("PLATFORM__EVENTLOG_URL".to_owned(), url.clone());
        }
        let mut installation = Self { folder: folder.to_owned(), registry, replicas: Vec::new(), environment };
        for number in 0..replicas {
            let replica = installation.replica(number)?;
            installation.replicas.push(replica);
        }
        Ok(installation)
    }

    fn replica(&self, number: usize) -> anyhow::Result<Replica> {
        let port = free_port()?;
        let mut environment = self.environment.clone();
        environment.insert("PLATFORM__DATA_DIR".to_owned(), path(&self.folder.join(format!("replica-{number}"))));
        let log = self.folder.join(format!("replica-{number}.log"));
        Ok(Replica { child: spawn("tidemill-ingestion", &log, port, &environment)?, port })
    }

    /// Ends a replica as a power cut would, and starts another in its place.
    pub(crate) fn kill(&mut self, number: usize) -> anyhow::Result<()> {
        end(&mut self.replicas[number].child);
        self.replicas[number] = self.replica(number)?;
        Ok(())
    }

    pub(crate) fn artifacts(&self) -> String {
        self.environment["PLATFORM__ARTIFACTS_URL"].clone()
    }

    /// Asks whichever replica answers, until one does.
    async fn ask<T>(
        &self,
        ask: impl AsyncFn(IngestionServiceClient<Channel>) -> Result<T, tonic::Status>,
    ) -> anyhow::Result<T> {
        let mut last = None;
        for attempt in 0..300 {
            let replica = &self.replicas[attempt % self.replicas.len()];
            let channel = transport::remote(&format!("http://127.0.0.1:{}", replica.port), &Default::default())
                .map_err(anyhow::Error::msg)?;
            match tokio::time::timeout(Duration::from_secs(5), ask(IngestionServiceClient::new(channel))).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(status)) if status.code() == tonic::Code::InvalidArgument => return Err(status.into()),
                Ok(Err(status)) => last = Some(status.to_string()),
                Err(_) => last = Some("no answer within 5 s".to_owned()),
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::bail!("no replica answers: {}; see {}", last.unwrap_or_default(), self.folder.display())
    }

    /// Waits until the API answers.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        let list = async |mut client: IngestionServiceClient<Channel>| {
            client.list_data_sources(ListDataSourcesRequest::default()).await
        };
        self.ask(list).await.map(drop)
    }

    /// Creates a source over a topic, and a dataset.
    pub(crate) async fn source(&self, uri: &str) -> anyhow::Result<(DataSource, Dataset)> {
        let spec = SourceSpec {
            uri: uri.to_owned(),
            format: RecordFormat::Json.into(),
            license: "CC0-1.0".to_owned(),
            consent_basis: ConsentBasis::Own.into(),
            max_record_bytes: LARGEST as i64,
            kafka: Some(KafkaOptions::default()),
            ..SourceSpec::default()
        };
        let request_id = uuid::Uuid::new_v4().to_string();
        let source = self.ask(async |mut client: IngestionServiceClient<Channel>| {
            let data_source = Some(DataSource { spec: Some(spec.clone()), ..DataSource::default() });
            let request = CreateDataSourceRequest { data_source, request_id: request_id.clone(), ..Default::default() };
            client.create_data_source(request).await
        });
        let source = source.await?.into_inner();
        let dataset = self.ask(async |mut client: IngestionServiceClient<Channel>| {
            let dataset = Some(Dataset::default());
            client
                .create_dataset(CreateDatasetRequest { dataset, request_id: request_id.clone(), ..Default::default() })
                .await
        });
        Ok((source, dataset.await?.into_inner()))
    }

    pub(crate) async fn version(&self, source: &DataSource, dataset: &Dataset) -> anyhow::Result<DatasetVersion> {
        let request_id = uuid::Uuid::new_v4().to_string();
        let version = self.ask(async |mut client: IngestionServiceClient<Channel>| {
            let origin = Some(Origin::DataSource(source.name.clone()));
            let request = CreateDatasetVersionRequest {
                parent: dataset.name.clone(),
                dataset_version: Some(DatasetVersion { origin, ..DatasetVersion::default() }),
                request_id: request_id.clone(),
                ..Default::default()
            };
            client.create_dataset_version(request).await
        });
        Ok(version.await?.into_inner())
    }

    pub(crate) async fn get(&self, name: &str) -> anyhow::Result<DatasetVersion> {
        let get = async |mut client: IngestionServiceClient<Channel>| {
            client.get_dataset_version(GetDatasetVersionRequest { name: name.to_owned() }).await
        };
        Ok(self.ask(get).await?.into_inner())
    }

    /// Waits for a version's end.
    pub(crate) async fn end(&self, name: &str) -> anyhow::Result<DatasetVersion> {
        loop {
            let version = self.get(name).await?;
            match version.state() {
                State::Succeeded => return Ok(version),
                State::Failed | State::Cancelled => {
                    anyhow::bail!("{name} ended as {:?}: {:?}", version.state(), version.error)
                }
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        end(&mut self.registry);
        self.replicas.iter_mut().for_each(|replica| end(&mut replica.child));
    }
}

fn end(child: &mut Child) {
    // One that is gone already needs no end.
    let _gone = child.kill();
    let _gone = child.wait();
}

/// Starts a program that lies where this one does.
fn spawn(program: &str, log: &Path, port: u16, environment: &BTreeMap<String, String>) -> anyhow::Result<Child> {
    let log = File::options().create(true).append(true).open(log)?;
    let mut command = Command::new(beside(program)?);
    command.env("TIDEMILL__SERVER__GRPC_ADDRESS", format!("127.0.0.1:{port}"));
    for (key, value) in environment {
        command.env(format!("TIDEMILL__{key}"), value);
    }
    let child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
    child.with_context(|| format!("{program} cannot be started; build it first: cargo build --workspace --bins"))
}

fn beside(program: &str) -> anyhow::Result<PathBuf> {
    let examples = std::env::current_exe()?;
    let folder = examples.parent().and_then(Path::parent).context("this program lies in a folder of a folder")?;
    Ok(folder.join(program))
}

/// A client of Kafka that is no part of Tidemill: see libs/eventlog/examples/kafka_pipe.rs.
pub(crate) fn kafka_pipe(arguments: &[&str], stdin: Stdio) -> anyhow::Result<Child> {
    let program = beside("examples/kafka_pipe")?;
    let child = Command::new(program).args(arguments).stdin(stdin).stdout(Stdio::piped()).spawn();
    child.context("kafka_pipe cannot be started; build it first: cargo build -p tidemill-eventlog --example kafka_pipe")
}

/// What it printed, once it has ended well.
pub(crate) fn printed(child: Child) -> anyhow::Result<String> {
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "kafka_pipe failed: {}", output.status);
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn path(path: &Path) -> String {
    path.display().to_string()
}
