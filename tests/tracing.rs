//! One trace covers a pipeline run from the command that began it to its last worker; another one a request from the gateway to its
//! tokens. Seen by a real receiver: rotel, whose program `TIDEMILL_TEST_ROTEL` names (`tests/telemetry/run` fetches it).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tidemill_sandbox::{Clients, Distributed, Received, Receiver, Servers, Span, Spawned, corpus, program, toml};
use tidemill_standalone::Endpoints;

/// What must not be found in any span.
const SECRET: &str = "pub fn xylophone_of_the_prompt(";

/// A pipeline over a folder of texts that takes seconds, as a person would write it.
fn pipeline(corpus: &Path) -> String {
    format!(
        r#"
id: code
source: {{uri: "file://{}", include: ["*.txt"], format: TEXT, license: Apache-2.0, consent_basis: OWN}}
recipe:
  steps: [{{normalize: {{}}}}, {{deduplicate: {{}}}}]
  split: {{validation_ratio: 0.1, test_ratio: 0.15}}
  tokenizer: {{byte_level_bpe: {{vocabulary_size: 512}}}}
training:
  architecture:
    llama:
      {{hidden_size: 48, intermediate_size: 96, num_hidden_layers: 2, num_attention_heads: 4, num_key_value_heads: 2,
       max_position_embeddings: 128, tie_word_embeddings: true}}
  steps: 40
  batch_size: 4
  sequence_length: 64
  optimizer: {{learning_rate: 3e-3}}
  schedule: {{warmup_steps: 5}}
  seed: 7
evaluation: {{baselines: [UNIGRAM], max_documents: 3}}
objective: {{task: text-generation, thresholds: [{{metric: bits_per_byte, max: 8.0}}]}}
serving: {{model: code, alias: champion, deployment: code}}
"#,
        corpus.display()
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_covers_a_run_to_its_last_worker_and_another_a_request_to_its_tokens() {
    let Some(rotel) = rotel() else { return };
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&rotel, folder.path()).await.unwrap();
    let data = folder.path().join("data");
    let settings = folder.path().join("tidemill.toml");
    std::fs::write(&settings, toml(&data, &telemetry(&receiver)).unwrap()).unwrap();
    let daemon = Spawned::start(&settings, &data).await.unwrap();
    run_and_ask(&daemon.endpoints, &receiver, folder.path()).await;
    daemon.terminate().await.unwrap();

    let received = receiver.stop().await.unwrap();
    let trees = trees(&received, |_| "tidemilld".to_owned());
    let log = std::fs::read_to_string(data.with_extension("log")).unwrap();
    let begins = log.lines().find(|line| line.contains("job begins") && line.contains("trainingJobs/")).unwrap();
    let run = the_run(&received, |_| "tidemilld".to_owned());
    assert!(begins.contains(&format!("\"trace_id\":\"{run}\"")), "{begins} is not of trace {run}");
    println!("{trees}");
    if let Some(path) = std::env::var_os("TIDEMILL_TRACE_TREES") {
        std::fs::write(path, trees).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn so_it_is_over_kafka_and_processes_apart() {
    let Some(rotel) = rotel() else { return };
    let Ok(servers) = Servers::shared() else {
        println!("skipped: traces over Kafka: TIDEMILL_TEST_KAFKA is not set; run make deps-up");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&rotel, folder.path()).await.unwrap();
    let more = telemetry(&receiver);
    let apart = Distributed::start(&servers, &folder.path().join("data"), 2, None, &more).await.unwrap();
    run_and_ask(&apart.endpoints, &receiver, folder.path()).await;
    apart.terminate().await.unwrap();
    println!("{}", trees(&receiver.stop().await.unwrap(), |service| format!("tidemill-{service}")));
}

fn rotel() -> Option<PathBuf> {
    let rotel = std::env::var_os("TIDEMILL_TEST_ROTEL").map(PathBuf::from);
    if rotel.is_none() {
        println!("skipped: traces at a real receiver: TIDEMILL_TEST_ROTEL is not set; run tests/telemetry/run");
    }
    rotel
}

fn telemetry(receiver: &Receiver) -> String {
    format!("[telemetry]\notlp_endpoint = {:?}\n", receiver.endpoint)
}

/// Runs a pipeline with the client, and asks its model for a stream.
async fn run_and_ask(endpoints: &Endpoints, receiver: &Receiver, folder: &Path) {
    Clients::connect(endpoints).unwrap().ready().await.unwrap();
    let file = folder.join("mini.yaml");
    std::fs::write(&file, pipeline(&corpus(folder).unwrap())).unwrap();
    let ran = tokio::process::Command::new(program("tidemill").unwrap())
        .args(["--server", &format!("http://{}", endpoints.grpc), "run"])
        .arg(&file)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.endpoint)
        .output()
        .await
        .unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));

    let body = serde_json::json!({"model": "code", "prompt": SECRET, "max_tokens": 24, "seed": 1, "stream": true});
    let url = format!("http://{}/v1/completions", endpoints.http);
    let streamed = tidemill_sandbox::eventually("a streamed answer", async || {
        let answer = reqwest::Client::new().post(&url).json(&body).send().await.ok()?;
        if answer.status().is_success() { answer.text().await.ok() } else { None }
    });
    assert!(streamed.await.unwrap().ends_with("data: [DONE]\n\n"));
}

/// Both traces as trees; `service` tells in which process a service is.
fn trees(received: &Received, service: impl Fn(&str) -> String) -> String {
    assert!(!received.text.contains("xylophone"), "a span holds content");
    format!("{}\n{}", received.tree(&the_run(received, service)), received.tree(&the_request(received)))
}

/// The trace of `tidemill run`: whole, and with every worker.
fn the_run(received: &Received, process: impl Fn(&str) -> String) -> String {
    let root = received.spans.iter().find(|span| span.name == "tidemill run").expect("the client sent its span");
    assert_eq!((root.service.as_str(), root.parent.as_str()), ("tidemill", ""));
    let trace = received.trace(&root.trace);
    let has = |service: &str, name: &str| {
        let found = trace.iter().any(|span| span.service == service && span.name == name);
        assert!(found, "no {name} of {service} in\n{}", received.tree(&root.trace));
    };
    for topic in ["pipeline", "ingestion", "preprocessing", "training", "evaluation"] {
        has(&process(topic), &format!("process tidemill.{topic}.tasks"));
    }
    has("tidemill-training-worker", "worker training");
    has("tidemill-evaluation-worker", "worker evaluation");
    has(&process("registry"), "tidemill.registry.v1.RegistryService/PromoteModelVersion");
    let ids: BTreeSet<&str> = trace.iter().map(|span| span.id.as_str()).collect();
    let lost: Vec<&&Span> = trace.iter().filter(|s| s.id != root.id && !ids.contains(s.parent.as_str())).collect();
    assert!(lost.is_empty(), "no way back to the command from {lost:#?}");
    root.trace.clone()
}

/// The trace of a streamed completion: gateway, call, answer, phases.
fn the_request(received: &Received) -> String {
    let answer = received.spans.iter().find(|span| span.name == "text_completion code").expect("a span of the answer");
    let by_id = |id: &str| received.trace(&answer.trace).into_iter().find(|span| span.id == id);
    let mut path = vec![];
    let mut above = by_id(&answer.parent);
    while let Some(span) = above {
        path.push(format!("{} {}", span.kind, span.name));
        above = by_id(&span.parent);
    }
    let call = "tidemill.inference.v1.InferenceService/GenerateStream";
    assert_eq!(path, [format!("SERVER {call}"), format!("CLIENT {call}"), "SERVER POST /v1/completions".to_owned()]);
    let mut phases: Vec<&Span> = received.spans.iter().filter(|span| span.parent == answer.id).collect();
    phases.sort_by_key(|span| span.start);
    assert_eq!(phases.iter().map(|span| span.name.as_str()).collect::<Vec<_>>(), ["queue", "prefill", "decode"]);
    for (key, value) in [
        ("gen_ai.operation.name", "Str(text_completion)"),
        ("gen_ai.provider.name", "Str(tidemill)"),
        ("gen_ai.request.model", "Str(code)"),
        ("gen_ai.request.max_tokens", "Int(24)"),
    ] {
        assert_eq!(answer.attributes.get(key).map(String::as_str), Some(value), "{key} of {answer:#?}");
    }
    for key in ["gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens", "gen_ai.response.finish_reasons"] {
        assert!(answer.attributes.contains_key(key), "{key} is not in {answer:#?}");
    }
    answer.trace.clone()
}
