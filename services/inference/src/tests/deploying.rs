use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tidemill_artifacts::Digest;
use tidemill_chassis::Fault;
use tidemill_models::{Activation, BertConfig, Config, Model};
use tidemill_proto::inference::v1::deployment::Status;
use tidemill_proto::inference::v1::generate_request::Input;
use tidemill_proto::inference::v1::{CreateDeploymentRequest, Deployment, GenerateRequest, ListDeploymentsRequest};
use tidemill_proto::r#type::v1::SamplingParameters;
use tonic::Code;

use super::world::{LIMITS, World};

fn request(model: &str) -> GenerateRequest {
    let sampling = SamplingParameters { temperature: Some(0.0), max_tokens: Some(12), ..SamplingParameters::default() };
    GenerateRequest {
        model: model.to_owned(),
        input: Some(Input::Prompt("The people".to_owned())),
        sampling: Some(sampling),
        ..GenerateRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_waits_for_the_first_version_and_then_answers() {
    let world = World::new(LIMITS).await;
    let status = world.client.clone().generate(request("tiny")).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("nothing is served yet"), "{}", status.message());

    world.deploy("tiny").await;
    let waiting = world.wait_for("tiny", |deployment| deployment.detail.contains("first version")).await;
    assert_eq!(waiting.status(), Status::Waiting);
    let status = world.client.clone().generate(request("tiny")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("models/tiny/aliases/champion"), "{}", status.message());

    let digest = world.store(1).await;
    world.registry.point(1, &digest);
    world.alias_moved().await;
    let ready = world.wait_for("tiny", |deployment| deployment.status() == Status::Ready).await;
    assert_eq!((ready.model_digest, ready.load_count), (digest.to_string(), 1));
    assert_eq!(ready.model_version, "models/tiny/versions/1");
    world.client.clone().generate(request("tiny")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_is_swapped_under_load_without_one_failure() {
    let world = World::serving(LIMITS).await;
    let expected: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let (mut client, expected, stop) = (world.client.clone(), expected.clone(), stop.clone());
            tokio::spawn(async move {
                let mut digests = Vec::new();
                while !stop.load(SeqCst) {
                    let answered = client.generate(request("tiny")).await.expect("no request fails").into_inner();
                    let digest = answered.answer.unwrap().model_digest;
                    // Greedy: a version has one answer, so a mixture of two versions would show.
                    let first = expected.lock().unwrap().entry(digest.clone()).or_insert(answered.text.clone()).clone();
                    assert_eq!(answered.text, first);
                    digests.push(digest);
                }
                digests
            })
        })
        .collect();
    let mut versions = vec![world.fleet.find("tiny").await.unwrap().loaded.digest.clone()];
    for seed in 2..6 {
        let digest = world.store(seed).await;
        world.registry.point(seed as u32, &digest);
        world.alias_moved().await;
        world.wait_for("tiny", |deployment| deployment.model_digest == digest.to_string()).await;
        versions.push(digest.to_string());
        // The new version answers from now on, whatever else is still being written.
        let answered = world.client.clone().generate(request("tiny")).await.unwrap().into_inner();
        assert_eq!(answered.answer.unwrap().model_digest, digest.to_string());
    }
    stop.store(true, SeqCst);
    for client in clients {
        let digests = client.await.unwrap();
        let order: Vec<_> = digests.iter().map(|digest| versions.iter().position(|v| v == digest).unwrap()).collect();
        assert!(order.is_sorted(), "an old version answered after a newer one: {order:?}");
    }
    assert!(expected.lock().unwrap().len() >= 2, "the load did not span a swap");
    let folders = std::fs::read_dir(world.folder.path().join("data/work/inference/models")).unwrap().count();
    assert_eq!(folders, 1, "folders of versions that are served no more are deleted");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_weights_are_named_and_the_old_version_goes_on() {
    let world = World::serving(LIMITS).await;
    let good = world.fleet.find("tiny").await.unwrap().loaded.digest.clone();
    let digest = world.store(2).await;
    let weights = std::fs::read(world.model_folder(2).join("model.safetensors")).unwrap();
    let right = Digest::of(&weights);
    let mut damaged = weights;
    *damaged.last_mut().unwrap() ^= 1;
    let found = Digest::of(&damaged);
    let blob = world.folder.path().join("data/artifacts/blobs/sha256").join(&right.hex()[..2]).join(right.hex());
    assert!(blob.exists());
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&blob, damaged).unwrap();

    world.registry.point(2, &digest);
    world.alias_moved().await;
    let degraded = world.wait_for("tiny", |deployment| deployment.status() == Status::Degraded).await;
    for part in ["model.safetensors", &right.to_string(), &found.to_string(), "models/tiny/versions/2"] {
        assert!(degraded.detail.contains(part), "{part} is not in {:?}", degraded.detail);
    }
    assert_eq!(degraded.model_digest, good);
    let answered = world.client.clone().generate(request("tiny")).await.unwrap().into_inner();
    assert_eq!(answered.answer.unwrap().model_digest, good);

    let next = world.store(3).await;
    world.registry.point(3, &next);
    world.alias_moved().await;
    let ready = world.wait_for("tiny", |deployment| deployment.status() == Status::Ready).await;
    assert_eq!((ready.model_digest, ready.detail), (next.to_string(), String::new()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_no_model_degrades_the_deployment_with_the_file() {
    let world = World::serving(LIMITS).await;
    world.store(2).await;
    std::fs::write(world.model_folder(2).join("generation_config.json"), r#"{"temperature": "hot"}"#).unwrap();
    let folder = world.model_folder(2);
    let digest = world.platform.artifacts.put_directory(&folder, "model", Vec::new(), BTreeMap::new()).await;
    world.registry.point(2, &digest.unwrap());
    world.alias_moved().await;
    let degraded = world.wait_for("tiny", |deployment| deployment.status() == Status::Degraded).await;
    assert!(degraded.detail.contains("generation_config.json: temperature"), "{}", degraded.detail);
    world.client.clone().generate(request("tiny")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_continues_no_text_is_not_served_and_the_one_before_stays() {
    let world = World::serving(LIMITS).await;
    world.store(2).await;
    let folder = world.model_folder(2);
    let config = Config::Bert(BertConfig {
        vocab_size: 320,
        hidden_size: 16,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 16,
        hidden_act: Activation::Gelu,
        max_position_embeddings: 16,
        type_vocab_size: 2,
        layer_norm_eps: 1e-12,
        initializer_range: 0.1,
        masked_lm: true,
        pooler: false,
        pad_token_id: None,
    });
    tidemill_models::save(&Model::new(config, 1, tch::Device::Cpu).unwrap(), &folder).unwrap();
    let digest = world.platform.artifacts.put_directory(&folder, "model", Vec::new(), BTreeMap::new()).await;
    world.registry.point(2, &digest.unwrap());
    world.alias_moved().await;
    let degraded = world.wait_for("tiny", |deployment| deployment.status() == Status::Degraded).await;
    assert!(degraded.detail.contains("config.json: a bert is not served"), "{}", degraded.detail);
    world.client.clone().generate(request("tiny")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn deployments_of_one_version_share_its_memory() {
    let world = World::serving(LIMITS).await;
    world.deploy("second").await;
    world.wait_for("second", |deployment| deployment.status() == Status::Ready).await;
    let (first, second) = (world.fleet.find("tiny").await.unwrap(), world.fleet.find("second").await.unwrap());
    assert!(Arc::ptr_eq(&first.loaded, &second.loaded));
    let list = world.client.clone().list_deployments(ListDeploymentsRequest::default()).await.unwrap().into_inner();
    assert_eq!(
        list.deployments.iter().map(|d| d.name.as_str()).collect::<Vec<_>>(),
        ["deployments/second", "deployments/tiny"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retried_create_makes_one_deployment() {
    let world = World::new(LIMITS).await;
    let deployment =
        Deployment { model: "models/tiny".to_owned(), alias: "champion".to_owned(), ..Deployment::default() };
    let request = CreateDeploymentRequest {
        deployment: Some(deployment),
        request_id: "5b5c3a1e-8a62-4f0f-9b5c-0d4a7c4e8d11".to_owned(),
        ..CreateDeploymentRequest::default()
    };
    let first = world.client.clone().create_deployment(request.clone()).await.unwrap().into_inner();
    let again = world.client.clone().create_deployment(request).await.unwrap().into_inner();
    assert_eq!((first.name, first.uid), (again.name, again.uid));

    let wrong = CreateDeploymentRequest { deployment_id: "A B".to_owned(), ..CreateDeploymentRequest::default() };
    let status = world.client.clone().create_deployment(wrong).await.unwrap_err();
    let fields: Vec<String> = Fault::from(status).fields.into_iter().map(|(field, _)| field).collect();
    assert_eq!(fields, ["deployment_id", "deployment.model", "deployment.alias"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_what_is_in_flight_and_ends_the_engines() {
    let world = World::serving(LIMITS).await;
    let mut long = request("tiny");
    long.sampling = Some(SamplingParameters { temperature: Some(2.0), seed: Some(4), ..SamplingParameters::default() });
    let mut stream = world.client.clone().generate_stream(long).await.unwrap().into_inner();
    let first = stream.message().await.unwrap().unwrap();
    assert!(first.receipt.is_none(), "the answer must be in flight when the stop comes");
    assert!(!world.fleet.idle());
    world.stop.cancel();
    let mut last = first;
    while let Some(message) = stream.message().await.unwrap() {
        last = message;
    }
    assert!(last.receipt.is_some(), "the answer in flight ends with its receipt");
    world.served.await.unwrap().unwrap();
    assert!(world.fleet.idle(), "an engine outlives its service");
}
