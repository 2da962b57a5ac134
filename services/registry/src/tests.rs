//! The service through its generated client, over a local channel.

mod lineage;
mod promotion;

use std::collections::BTreeMap;

use tidemill_artifacts::{Entry, Manifest};
use tidemill_chassis::Settings;
use tidemill_chassis::transport::Channel;
use tidemill_platform::Platform;
use tidemill_proto::registry::v1::registry_service_client::RegistryServiceClient;
use tidemill_proto::registry::v1::*;
use tonic::{Code, Status};
use tonic_types::StatusExt;

type Client = RegistryServiceClient<Channel>;

struct Registry {
    client: Client,
    platform: Platform,
    _data: tempfile::TempDir,
}

async fn registry() -> Registry {
    let data = tempfile::tempdir().unwrap();
    let env = [
        ("TIDEMILL__PLATFORM__DATA_DIR", data.path().to_str().unwrap()),
        ("TIDEMILL__PLATFORM__RESOURCES_URL", "sqlite::memory:"),
        ("TIDEMILL__PLATFORM__ARTIFACTS_URL", "memory:"),
    ];
    let env: BTreeMap<_, _> = env.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
    let settings = Settings::from_layers(&[tidemill_platform::DEFAULTS], None, env).unwrap();
    let platform = Platform::connect(&settings).await.unwrap();
    let service = crate::build(&settings, &platform).unwrap();
    let client = RegistryServiceClient::new(service.local_channel().unwrap());
    Registry { client, platform, _data: data }
}

impl Registry {
    /// Stores a directory and gives its digest.
    async fn artifact(&self, kind: &str, content: &str) -> String {
        let (digest, size) = self.platform.artifacts.put(content.to_owned()).await.unwrap();
        let entries = vec![Entry { path: "config.json".to_owned(), digest, size }];
        let manifest = Manifest { kind: kind.to_owned(), entries, ..Manifest::default() };
        self.platform.artifacts.put_manifest(&manifest).await.unwrap().to_string()
    }

    async fn model(&mut self, id: &str) {
        let request =
            CreateModelRequest { model_id: id.to_owned(), model: Some(Model::default()), ..Default::default() };
        self.client.create_model(request).await.unwrap();
    }

    async fn version(&mut self, model: &str, digest: &str) -> Result<ModelVersion, Status> {
        let version = ModelVersion { digest: digest.to_owned(), ..ModelVersion::default() };
        let parent = format!("models/{model}");
        let request = CreateModelVersionRequest { parent, model_version: Some(version), ..Default::default() };
        Ok(self.client.create_model_version(request).await?.into_inner())
    }
}

fn digest(text: &str) -> String {
    tidemill_artifacts::Digest::of(text).to_string()
}

fn fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let bad = details.bad_request().expect("it names fields");
    bad.field_violations.iter().map(|violation| violation.field.clone()).collect()
}

#[tokio::test]
async fn versions_are_numbered_and_a_known_digest_answers_with_its_version() {
    let mut registry = registry().await;
    registry.model("sotu").await;
    let (a, b) = (registry.artifact("model", "a").await, registry.artifact("model", "b").await);
    let first = registry.version("sotu", &a).await.unwrap();
    assert_eq!(first.name, "models/sotu/versions/1");
    let second = registry.version("sotu", &b).await.unwrap();
    assert_eq!(second.name, "models/sotu/versions/2");
    assert_eq!(registry.version("sotu", &a).await.unwrap(), first);

    let request = ListModelVersionsRequest { parent: "models/sotu".to_owned(), ..Default::default() };
    let listed = registry.client.list_model_versions(request).await.unwrap().into_inner().model_versions;
    assert_eq!(listed, [second, first]);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_registered_at_the_same_time_leave_neither_gap_nor_double() {
    let mut registry = registry().await;
    registry.model("m").await;
    let mut tasks = tokio::task::JoinSet::new();
    for index in 0..12 {
        // Each digest twice, as a retry would.
        let digest = registry.artifact("model", &format!("{}", index / 2)).await;
        let mut client = registry.client.clone();
        tasks.spawn(async move {
            let version = ModelVersion { digest, ..ModelVersion::default() };
            let parent = "models/m".to_owned();
            let request = CreateModelVersionRequest { parent, model_version: Some(version), ..Default::default() };
            client.create_model_version(request).await.unwrap().into_inner().name
        });
    }
    let mut names = tasks.join_all().await;
    names.sort();
    names.dedup();
    let expected: Vec<String> = (1..=6).map(|number| format!("models/m/versions/{number}")).collect();
    assert_eq!(names, expected);
}

#[tokio::test]
async fn a_version_needs_a_stored_model() {
    let mut registry = registry().await;
    let model = registry.artifact("model", "a").await;
    assert_eq!(registry.version("nobody", &model).await.unwrap_err().code(), Code::NotFound);
    registry.model("m").await;
    assert_eq!(registry.version("m", &digest("absent")).await.unwrap_err().code(), Code::NotFound);
    let dataset = registry.artifact("dataset", "b").await;
    let status = registry.version("m", &dataset).await.unwrap_err();
    assert_eq!(fields(&status), ["model_version.digest"]);
    assert!(status.message().contains("is a dataset"), "{}", status.message());
}

#[tokio::test]
async fn all_wrong_fields_are_named_at_once() {
    let mut registry = registry().await;
    let version = ModelVersion {
        digest: "x".to_owned(),
        base_model_digest: "y".to_owned(),
        parameter_count: -1,
        ..Default::default()
    };
    let request = CreateModelVersionRequest {
        parent: "models/A".to_owned(),
        model_version_id: "mine".to_owned(),
        model_version: Some(version),
        ..Default::default()
    };
    let status = registry.client.create_model_version(request).await.unwrap_err();
    let expected = [
        "parent",
        "model_version_id",
        "model_version.digest",
        "model_version.base_model_digest",
        "model_version.parameter_count",
    ];
    assert_eq!(fields(&status), expected);

    let request = CreateObjectiveRequest {
        objective: Some(Objective { spec: Some(Default::default()), ..Default::default() }),
        ..Default::default()
    };
    let status = registry.client.create_objective(request).await.unwrap_err();
    assert_eq!(fields(&status), ["objective.spec.task", "objective.spec.thresholds"]);
}

#[tokio::test]
async fn a_retried_create_answers_with_the_first_model() {
    let mut registry = registry().await;
    let request = |request_id: &str| CreateModelRequest {
        model_id: "m".to_owned(),
        model: Some(Model { description: "speeches".to_owned(), ..Model::default() }),
        request_id: request_id.to_owned(),
    };
    let first = registry.client.create_model(request("one")).await.unwrap().into_inner();
    assert_eq!(registry.client.create_model(request("one")).await.unwrap().into_inner(), first);
    assert_eq!(registry.client.create_model(request("two")).await.unwrap_err().code(), Code::AlreadyExists);
    let listed = registry.client.list_models(ListModelsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.models, [first]);
}
