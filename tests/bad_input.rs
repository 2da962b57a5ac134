//! Bad input through the API: damaged artifacts, wrong requests, clients that leave, a full disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt;
use tidemill_proto::evaluation::v1 as evaluation;
use tidemill_proto::inference::v1 as inference;
use tidemill_proto::inference::v1::generate_request::Input;
use tidemill_proto::ingestion::v1 as ingestion;
use tidemill_proto::pipeline::v1 as pipeline;
use tidemill_proto::preprocessing::v1 as preprocessing;
use tidemill_proto::r#type::v1::{SamplingParameters, State};
use tidemill_sandbox::{Sandbox, corpus, mini_pipeline, run_to_end};
use tonic::Code;
use tonic_types::StatusExt;

fn request(prompt: &str, sampling: SamplingParameters) -> inference::GenerateRequest {
    inference::GenerateRequest {
        model: "code".to_owned(),
        input: Some(Input::Prompt(prompt.to_owned())),
        sampling: Some(sampling),
        ..Default::default()
    }
}

/// The file of a blob, found by its digest wherever the adapter keeps it.
fn blob(data: &Path, digest: &str) -> PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    let mut pending = vec![data.join("artifacts")];
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.to_string_lossy().replace('/', "").contains(hex) {
                return path;
            }
        }
    }
    panic!("no blob {digest}");
}

/// The digest of a file of an artifact, and a damaged byte in it.
fn damage(data: &Path, manifest: &str, file: &str) -> String {
    let text = std::fs::read_to_string(blob(data, manifest)).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&text).unwrap();
    let entries = manifest["entries"].as_array().unwrap();
    let entry = entries.iter().find(|entry| entry["path"].as_str().unwrap().contains(file)).unwrap();
    let digest = entry["digest"].as_str().unwrap().to_owned();
    let path = blob(data, &digest);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    // The store keeps its files read-only; replacing one is what a failing disk does.
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    digest
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_artifacts_are_named_and_wrong_requests_explained() {
    let sandbox = Sandbox::start().await.unwrap();
    let texts = tempfile::tempdir().unwrap();
    let spec = mini_pipeline("code", &corpus(texts.path()).unwrap());
    let run = run_to_end(&sandbox.clients, spec.clone()).await.unwrap();
    wrong_requests_are_explained(&sandbox).await;
    clients_that_leave_cost_nothing(&sandbox).await;
    if !sandbox.data.join("artifacts").exists() {
        println!("skipped: damaged artifacts: here they are not in files that this test could damage");
        return sandbox.stop().await.unwrap();
    }

    let digest_of = |step: &str| run.steps.iter().find(|s| s.id == step).unwrap().digest.clone();

    let weights = damage(&sandbox.data, &run.model_digest, "model.safetensors");
    let create = evaluation::CreateEvaluationRequest {
        evaluation: Some(evaluation::Evaluation {
            model_version: run.model_version.clone(),
            dataset_digest: digest_of("preprocess"),
            suite: spec.evaluation.clone(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let created = sandbox.clients.evaluation.clone().create_evaluation(create).await.unwrap().into_inner();
    let failed = tidemill_sandbox::eventually("the evaluation's end", async || {
        let get = evaluation::GetEvaluationRequest { name: created.name.clone() };
        let now = sandbox.clients.evaluation.clone().get_evaluation(get).await.ok()?.into_inner();
        (now.state() != State::Pending && now.state() != State::Running).then_some(now)
    })
    .await
    .unwrap();
    let error = failed.error.expect("a damaged file fails the job");
    assert_eq!(error.code, Code::DataLoss as i32, "{}", error.message);
    assert!(error.message.contains(&weights) && error.message.contains("model.safetensors"), "{}", error.message);

    let shard = damage(&sandbox.data, &digest_of("ingest"), "data/");
    let mut recipe = spec.recipe.clone().unwrap();
    recipe.split.as_mut().unwrap().test_ratio = 0.2;
    let create = preprocessing::CreatePreprocessingJobRequest {
        preprocessing_job: Some(preprocessing::PreprocessingJob {
            inputs: vec![preprocessing::preprocessing_job::Input { digest: digest_of("ingest"), repeat: 1 }],
            recipe: Some(recipe),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut client = sandbox.clients.preprocessing.clone();
    let created = client.create_preprocessing_job(create).await.unwrap().into_inner();
    let watch = preprocessing::WatchPreprocessingJobRequest { name: created.name };
    let changes: Vec<_> = client.watch_preprocessing_job(watch).await.unwrap().into_inner().collect().await;
    let error = changes.last().unwrap().as_ref().unwrap().error.clone().expect("a damaged shard fails the job");
    assert_eq!(error.code, Code::DataLoss as i32, "{}", error.message);
    assert!(error.message.contains(&shard), "{}", error.message);
    sandbox.stop().await.unwrap();
}

async fn wrong_requests_are_explained(sandbox: &Sandbox) {
    let generate = async |request| sandbox.clients.inference.clone().generate(request).await.unwrap_err();

    let long = generate(request(&"word ".repeat(4000), SamplingParameters::default())).await;
    assert_eq!(long.code(), Code::InvalidArgument);
    assert!(long.message().contains("128"), "the context is named: {}", long.message());

    let sampling = SamplingParameters {
        temperature: Some(-1.0),
        top_p: Some(1.5),
        top_k: Some(-3),
        max_tokens: Some(0),
        stop: vec![String::new()],
        ..Default::default()
    };
    let wrong = generate(request("fn", sampling)).await;
    assert_eq!(wrong.code(), Code::InvalidArgument);
    let details = wrong.get_error_details();
    let fields: Vec<_> = details.bad_request().unwrap().field_violations.iter().map(|v| v.field.as_str()).collect();
    for field in ["sampling.temperature", "sampling.top_p", "sampling.top_k", "sampling.max_tokens", "sampling.stop"] {
        assert!(fields.iter().any(|found| found.starts_with(field)), "{field} is not among {fields:?}");
    }

    let unknown =
        generate(inference::GenerateRequest { model: "nobody".into(), ..request("fn", Default::default()) }).await;
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains("nobody") && unknown.message().contains("code"), "{}", unknown.message());
}

async fn clients_that_leave_cost_nothing(sandbox: &Sandbox) {
    for _ in 0..20 {
        let sampling = SamplingParameters { max_tokens: Some(100), ..Default::default() };
        let stream = sandbox.clients.inference.clone().generate_stream(request("fn", sampling)).await.unwrap();
        let first = stream.into_inner().next().await;
        assert!(first.unwrap().is_ok());
    }
    let sampling = SamplingParameters { max_tokens: Some(4), ..Default::default() };
    let mut client = sandbox.clients.inference.clone();
    let answer = client.generate(request("fn", sampling));
    tokio::time::timeout(Duration::from_secs(10), answer).await.expect("abandoned streams are stopped").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_with_several_mistakes_is_answered_with_all_of_them() {
    let sandbox = Sandbox::start().await.unwrap();
    let mut spec = mini_pipeline("code", Path::new("/nowhere"));
    spec.source.as_mut().unwrap().license.clear();
    spec.training.as_mut().unwrap().steps = 0;
    spec.training.as_mut().unwrap().sequence_length = 4096;
    spec.recipe.as_mut().unwrap().split.as_mut().unwrap().test_ratio = 1.5;
    spec.serving.as_mut().unwrap().model = "Not An Id".to_owned();
    let create = pipeline::CreatePipelineRequest {
        pipeline_id: "code".to_owned(),
        pipeline: Some(pipeline::Pipeline { spec: Some(spec), ..Default::default() }),
        ..Default::default()
    };
    let status = sandbox.clients.pipeline.clone().create_pipeline(create).await.unwrap_err();
    let details = status.get_error_details();
    let fields: Vec<_> = details.bad_request().unwrap().field_violations.iter().map(|v| v.field.clone()).collect();
    for field in ["source.license", "training.steps", "training.sequence_length", "split.test_ratio", "serving.model"] {
        assert!(fields.iter().any(|found| found.ends_with(field)), "{field} is not among {fields:?}");
    }
    sandbox.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_missing_or_empty_fails_the_run_with_its_name() {
    let sandbox = Sandbox::start().await.unwrap();
    let empty = tempfile::tempdir().unwrap();
    for (id, folder) in [("missing", Path::new("/no/such/folder")), ("empty", empty.path())] {
        let error = run_to_end(&sandbox.clients, mini_pipeline(id, folder)).await.unwrap_err().to_string();
        assert!(error.contains(&folder.display().to_string()), "{error}");
    }
    sandbox.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn unreadable_records_are_quarantined_with_the_reason() {
    let sandbox = Sandbox::start().await.unwrap();
    let texts = tempfile::tempdir().unwrap();
    let folder = corpus(texts.path()).unwrap();
    let good = std::fs::read(folder.join("proto_src_lib.txt")).unwrap();
    std::fs::write(folder.join("garbage.txt"), [0u8, 159, 146, 150].repeat(500)).unwrap();
    std::fs::write(folder.join("latin1.txt"), b"caf\xe9 au lait, s'il vous pla\xeet").unwrap();
    std::fs::write(folder.join("zz_copy.txt"), good).unwrap();
    std::fs::write(folder.join("nothing.txt"), b"").unwrap();
    let run = run_to_end(&sandbox.clients, mini_pipeline("code", &folder)).await.unwrap();
    let ingest = run.steps.iter().find(|step| step.id == "ingest").unwrap();
    let list = ingestion::ListRecordsRequest {
        parent: ingest.resource.clone(),
        filter: "quarantined = true".to_owned(),
        ..Default::default()
    };
    let records = sandbox.clients.ingestion.clone().list_records(list).await.unwrap().into_inner().records;
    let reason = |name: &str| records.iter().find(|r| r.origin.contains(name)).map(|r| r.reason.as_str());
    assert!(reason("garbage").is_some_and(|r| r == "BINARY" || r == "INVALID_UTF8"), "{records:?}");
    assert_eq!(reason("latin1"), Some("INVALID_UTF8"));
    assert_eq!(reason("zz_copy"), Some("DUPLICATE"));
    assert_eq!(reason("nothing"), Some("EMPTY"));
    sandbox.stop().await.unwrap();
}
