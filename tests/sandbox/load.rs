//! Mixed traffic that knows what it should get back: answers of a model by seed, and feedback that must not be lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Result;
use tidemill_proto::inference::v1 as inference;
use tidemill_proto::ingestion::v1 as ingestion;
use tidemill_proto::r#type::v1::SamplingParameters;
use tokio::task::JoinHandle;

use crate::Clients;

/// Seeds that are asked for, in turn.
const SEEDS: u64 = 8;
/// Pause between requests of one kind.
const PAUSE: Duration = Duration::from_millis(40);
/// How long a caller waits for an answer.
const DEADLINE: Duration = Duration::from_secs(20);

/// A completion of a served model; the same seed gives the same text.
pub async fn complete(clients: &Clients, model: &str, seed: u64) -> Result<String, tonic::Status> {
    let mut request = tonic::Request::new(inference::GenerateRequest {
        model: model.to_owned(),
        input: Some(inference::generate_request::Input::Prompt("pub fn ".to_owned())),
        sampling: Some(SamplingParameters { max_tokens: Some(6), seed: Some(seed), ..Default::default() }),
        ..Default::default()
    });
    request.set_timeout(DEADLINE);
    Ok(clients.inference.clone().generate(request).await?.into_inner().text)
}

/// What came of the requests of one kind.
#[derive(Default)]
pub struct Tally {
    answered: AtomicUsize,
    failed: AtomicUsize,
    longest: Mutex<Duration>,
    /// A few of the failures.
    said: Mutex<BTreeMap<String, usize>>,
}

impl Tally {
    fn told<T>(&self, begun: Instant, outcome: Result<T, tonic::Status>) -> Option<T> {
        let mut longest = self.longest.lock().expect("no holder panics");
        *longest = begun.elapsed().max(*longest);
        match outcome {
            Ok(value) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                Some(value)
            }
            Err(status) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let text = format!("{:?}: {}", status.code(), status.message());
                *self.said.lock().expect("no holder panics").entry(text).or_default() += 1;
                None
            }
        }
    }

    /// Requests answered, and requests failed, since the last look; with the longest, and what failures said.
    pub fn take(&self) -> (usize, usize, Duration, BTreeMap<String, usize>) {
        let longest = std::mem::take(&mut *self.longest.lock().expect("no holder panics"));
        let said = std::mem::take(&mut *self.said.lock().expect("no holder panics"));
        (self.answered.swap(0, Ordering::Relaxed), self.failed.swap(0, Ordering::Relaxed), longest, said)
    }
}

/// Traffic that flows until it is stopped.
pub struct Load {
    /// Completions.
    pub completions: Arc<Tally>,
    /// Feedback.
    pub feedback: Arc<Tally>,
    /// Completions that had another text than their seed gives.
    pub wrong: Arc<AtomicUsize>,
    acknowledged: Arc<Mutex<BTreeSet<String>>>,
    stop: Arc<AtomicBool>,
    flows: Vec<JoinHandle<()>>,
}

impl Load {
    /// Learns what each seed gives, then begins.
    ///
    /// # Errors
    /// The model does not answer.
    pub async fn start(clients: &Clients, model: &str) -> Result<Self> {
        let mut expected = Vec::new();
        for seed in 0..SEEDS {
            expected.push(complete(clients, model, seed).await?);
        }
        let mut load = Self {
            completions: Arc::default(),
            feedback: Arc::default(),
            wrong: Arc::default(),
            acknowledged: Arc::default(),
            stop: Arc::default(),
            flows: Vec::new(),
        };
        load.flows.push(load.ask(clients.clone(), model.to_owned(), expected));
        load.flows.push(load.judge(clients.clone(), model.to_owned()));
        Ok(load)
    }

    fn ask(&self, clients: Clients, model: String, expected: Vec<String>) -> JoinHandle<()> {
        let (stop, tally, wrong) = (self.stop.clone(), self.completions.clone(), self.wrong.clone());
        tokio::spawn(async move {
            let mut turn = (0..SEEDS).cycle();
            while !stop.load(Ordering::Relaxed) {
                let seed = turn.next().expect("it never ends");
                let begun = Instant::now();
                if let Some(text) = tally.told(begun, complete(&clients, &model, seed).await) {
                    wrong.fetch_add(usize::from(text != expected[seed as usize]), Ordering::Relaxed);
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
    }

    fn judge(&self, clients: Clients, model: String) -> JoinHandle<()> {
        let (stop, tally, acknowledged) = (self.stop.clone(), self.feedback.clone(), self.acknowledged.clone());
        tokio::spawn(async move {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                number += 1;
                let begun = Instant::now();
                let outcome = judge(&clients, &model, number).await;
                if let Some(name) = tally.told(begun, outcome) {
                    acknowledged.lock().expect("no holder panics").insert(name);
                }
                tokio::time::sleep(PAUSE).await;
            }
        })
    }

    /// Ends the traffic; gives the names of all feedback that was acknowledged.
    ///
    /// # Errors
    /// A flow panicked.
    pub async fn stop(self) -> Result<BTreeSet<String>> {
        self.stop.store(true, Ordering::Relaxed);
        for flow in self.flows {
            flow.await?;
        }
        let acknowledged = std::mem::take(&mut *self.acknowledged.lock().expect("no holder panics"));
        Ok(acknowledged)
    }
}

async fn judge(clients: &Clients, model: &str, number: u64) -> Result<String, tonic::Status> {
    let feedback = ingestion::Feedback {
        answer: format!("answers/load-{number}"),
        prompt: format!("pub fn number_{number}("),
        completion: "?".to_owned(),
        correction: format!(") -> u64 {{\n    {number}\n}}\n"),
        model: format!("models/{model}"),
        consent: true,
        ..Default::default()
    };
    let mut request = tonic::Request::new(ingestion::CreateFeedbackRequest {
        feedback_id: format!("load-{number}"),
        feedback: Some(feedback),
        request_id: uuid::Uuid::new_v4().to_string(),
    });
    request.set_timeout(DEADLINE);
    Ok(clients.ingestion.clone().create_feedback(request).await?.into_inner().name)
}
