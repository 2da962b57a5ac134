//! Two replicas of every service are restarted in turn, as a rolling update does, under mixed traffic: no request fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use tidemill_chassis::transport::{self, Channel};
use tidemill_proto::inference::v1 as inference;
use tidemill_proto::inference::v1::inference_service_client::InferenceServiceClient;
use tidemill_proto::registry::v1 as registry;
use tidemill_proto::registry::v1::registry_service_client::RegistryServiceClient;
use tidemill_proto::training::v1 as training;
use tidemill_proto::training::v1::training_service_client::TrainingServiceClient;
use tidemill_proto::r#type::v1::SamplingParameters;
use tidemill_sandbox::{Clients, Distributed, SERVICES, Servers, corpus, mini_pipeline, run_to_end};

/// Requests begun each second.
const RATE: u64 = 200;

/// What clients outside see: both gateways, as a Kubernetes Service or a load balancer shows them.
#[derive(Clone)]
struct Edge {
    grpc: Channel,
    http: Vec<String>,
    client: reqwest::Client,
}

impl Edge {
    fn new(distributed: &Distributed) -> Self {
        let gateways = distributed.addresses("gateway");
        let uris: Vec<String> = gateways.iter().map(|(grpc, _)| format!("http://{grpc}")).collect();
        Self {
            grpc: transport::remote(&uris.join(","), &Default::default()).unwrap(),
            http: gateways.iter().map(|(_, http)| format!("http://{http}")).collect(),
            client: reqwest::Client::new(),
        }
    }

    /// One request of the mix; which kind, its number says.
    async fn request(&self, number: usize) -> Result<()> {
        match number % 10 {
            0 => self.stream(number).await,
            1 => self.grpc_stream(number).await,
            2 => self.http("/v1/models").await.map(drop),
            3 => self.http("/v1/completions").await.map(drop),
            4..=6 => {
                let name = "models/code/aliases/champion".to_owned();
                let mut registry = RegistryServiceClient::new(self.grpc.clone());
                registry.get_alias(registry::GetAliasRequest { name }).await.map(drop).context("GetAlias")
            }
            7 => {
                let list = training::ListTrainingJobsRequest::default();
                TrainingServiceClient::new(self.grpc.clone())
                    .list_training_jobs(list)
                    .await
                    .map(drop)
                    .context("ListTrainingJobs")
            }
            _ => {
                let list = inference::ListDeploymentsRequest::default();
                InferenceServiceClient::new(self.grpc.clone())
                    .list_deployments(list)
                    .await
                    .map(drop)
                    .context("ListDeployments")
            }
        }
    }

    /// A streamed completion, read to its `[DONE]`.
    async fn stream(&self, number: usize) -> Result<()> {
        let text = self.send(number, true).await?.text().await.context("the stream broke")?;
        ensure!(text.contains("[DONE]") && !text.contains("data: {\"error\""), "the stream ended with {text:?}");
        Ok(())
    }

    async fn http(&self, path: &str) -> Result<String> {
        let response = if path == "/v1/models" {
            self.at(0, |base| self.client.get(format!("{base}{path}"))).await?
        } else {
            self.send(1, false).await?
        };
        Ok(response.text().await?)
    }

    async fn send(&self, number: usize, stream: bool) -> Result<reqwest::Response> {
        let body = serde_json::json!({
            "model": "code", "prompt": "pub fn ", "max_tokens": 8, "stream": stream, "seed": number, "store": false,
        });
        self.at(number, |base| self.client.post(format!("{base}/v1/completions")).json(&body)).await
    }

    /// Sends to one gateway; one that takes no connections is not in the Service's endpoints, so the other one gets it.
    async fn at(&self, number: usize, request: impl Fn(&str) -> reqwest::RequestBuilder) -> Result<reqwest::Response> {
        let mut refused = None;
        for turn in 0..self.http.len() {
            match request(&self.http[(number + turn) % self.http.len()]).send().await {
                Ok(response) => {
                    let status = response.status();
                    if status.is_success() {
                        return Ok(response);
                    }
                    anyhow::bail!("{status}: {}", response.text().await.unwrap_or_default());
                }
                Err(error) if error.is_connect() => refused = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Err(refused.context("there is no gateway")?.into())
    }

    async fn grpc_stream(&self, number: usize) -> Result<()> {
        let request = inference::GenerateRequest {
            model: "code".to_owned(),
            input: Some(inference::generate_request::Input::Prompt("pub fn ".to_owned())),
            sampling: Some(SamplingParameters { max_tokens: Some(8), seed: Some(number as u64), ..Default::default() }),
            ..Default::default()
        };
        let mut stream = InferenceServiceClient::new(self.grpc.clone()).generate_stream(request).await?.into_inner();
        let mut finished = false;
        while let Some(piece) = stream.next().await {
            finished = !piece?.finish_reason.is_empty();
        }
        ensure!(finished, "the stream ended before its end");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_everything_fails_no_request() {
    if std::env::var("TIDEMILL_TEST_KAFKA").is_err() {
        eprintln!("skipped: rolling restart: TIDEMILL_TEST_KAFKA is not set; run make deps-up");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let servers = Servers::shared().unwrap();
    let mut distributed = Distributed::start(&servers, &folder.path().join("data"), 2, None, "").await.unwrap();
    let clients = Clients::connect(&distributed.endpoints).unwrap();
    // The gateway knows how the services behind it are.
    clients.serving("tidemill.training.v1.TrainingService").await.unwrap();
    let mut spec = mini_pipeline("code", &corpus(folder.path()).unwrap());
    spec.feedback = None;
    run_to_end(&clients, spec).await.unwrap();
    let edge = Edge::new(&distributed);
    both_replicas_answer(&distributed).await;

    let stop = Arc::new(AtomicBool::new(false));
    let (begun, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let traffic = {
        let (stop, begun, done) = (stop.clone(), begun.clone(), done.clone());
        tokio::spawn(async move {
            let mut failures = Vec::new();
            let mut requests = tokio::task::JoinSet::new();
            let mut tick = tokio::time::interval(Duration::from_micros(1_000_000 / RATE));
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Burst);
            while !stop.load(Ordering::Relaxed) {
                tokio::select! {
                    _ = tick.tick() => {
                        let number = begun.fetch_add(1, Ordering::Relaxed);
                        let edge = edge.clone();
                        requests.spawn(async move { (number, edge.request(number).await) });
                    }
                    Some(ended) = requests.join_next() => {
                        done.fetch_add(1, Ordering::Relaxed);
                        if let (number, Err(error)) = ended.unwrap() {
                            failures.push(format!("request {number}: {error:#}"));
                        }
                    }
                }
            }
            while let Some(ended) = requests.join_next().await {
                done.fetch_add(1, Ordering::Relaxed);
                if let (number, Err(error)) = ended.unwrap() {
                    failures.push(format!("request {number}: {error:#}"));
                }
            }
            failures
        })
    };
    let started = std::time::Instant::now();
    for service in SERVICES {
        for index in 0..2 {
            distributed.restart(service, index).await.unwrap();
            if *service == "inference" {
                both_replicas_answer(&distributed).await;
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    let failures = traffic.await.unwrap();
    let (seconds, done) = (started.elapsed().as_secs_f64(), done.load(Ordering::Relaxed));
    println!(
        "{done} requests in {seconds:.0} s ({:.0}/s) over 16 restarts, {} failed",
        done as f64 / seconds,
        failures.len()
    );
    assert!(failures.is_empty(), "{} of {done} failed: {:#?}", failures.len(), &failures[..failures.len().min(10)]);
    distributed.terminate().await.unwrap();
}

/// Waits until every inference replica has its model: a rolling update waits for readiness.
async fn both_replicas_answer(distributed: &Distributed) {
    for (grpc, _) in distributed.addresses("inference") {
        let channel = transport::remote(&format!("http://{grpc}"), &Default::default()).unwrap();
        let request = inference::GenerateRequest {
            model: "code".to_owned(),
            input: Some(inference::generate_request::Input::Prompt("pub".to_owned())),
            sampling: Some(SamplingParameters { max_tokens: Some(1), ..Default::default() }),
            ..Default::default()
        };
        tidemill_sandbox::eventually("the model on every replica", async || {
            InferenceServiceClient::new(channel.clone()).generate(request.clone()).await.ok()
        })
        .await
        .unwrap();
    }
}
