//! Feedback starts the next turn: usable feedback is counted once for each pipeline, and at the threshold a run begins with exactly
//! what was counted.
//!
//! Beside a pipeline stand `<pipeline>/countedFeedback/<id>`, which says that one was counted, and `<pipeline>/feedbackQueues/pending`,
//! the names that wait. Mark and queue are one batch, and so are the emptied queue and the run that takes it: a kill at any instant
//! neither loses feedback nor counts it twice.

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message;
use tidemill_chassis::Fault;
use tidemill_platform::consumer::{Handler, Incoming};
use tidemill_platform::{Clients, Platform, fault_of_resources};
use tidemill_proto::event::v1::FeedbackCreated;
use tidemill_proto::pipeline::v1::Pipeline;
use tidemill_proto::pipeline::v1::pipeline_run::Trigger;
use tidemill_proto::registry::v1::GetAliasRequest;
use tidemill_proto::{Job, names};
use tidemill_resources::{Batch, Collection, Error, Record, Write};
use tonic::Code;

use crate::runs::{self, Runs};

/// The queue of one pipeline.
#[derive(Clone, PartialEq, prost::Message)]
struct Queue {
    /// Feedback counted and not yet learned from.
    #[prost(string, repeated, tag = "1")]
    pending: Vec<String>,
    /// The last run that feedback began.
    #[prost(string, tag = "2")]
    last_run: String,
}

/// Counts feedback and begins runs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Feedback {
    runs: Runs,
    clients: Clients,
}

/// Reads the topic of new feedback.
pub(crate) struct Counter(pub(crate) Feedback);

#[async_trait]
impl Handler for Counter {
    type Payload = FeedbackCreated;

    async fn handle(&self, incoming: Incoming<FeedbackCreated>) -> Result<(), Fault> {
        let FeedbackCreated { feedback, model, usable } = incoming.payload;
        if !usable {
            return Ok(());
        }
        for pipeline in self.0.runs.pipelines.all("").await.map_err(fault_of_resources)? {
            if learns_from(&pipeline, &model) {
                self.0.count(&pipeline.name, &feedback).await?;
                // Also where it was counted before: the process may have died between the two.
                self.0.begin_if_due(&pipeline.name).await?;
            }
        }
        Ok(())
    }
}

/// Whether feedback on a model counts for a pipeline.
fn learns_from(pipeline: &Pipeline, model: &str) -> bool {
    let Some(spec) = &pipeline.spec else { return false };
    let of_pipeline = spec.serving.as_ref().map(|serving| format!("models/{}", serving.model));
    spec.feedback.is_some() && of_pipeline.as_deref() == Some(model)
}

impl Feedback {
    pub(crate) fn new(platform: &Platform, runs: Runs) -> Self {
        Self { runs, clients: platform.clients.clone() }
    }

    /// Counts feedback, once.
    async fn count(&self, pipeline: &str, feedback: &str) -> Result<(), Fault> {
        let mark = format!("{pipeline}/countedFeedback/{}", names::last_id(feedback));
        for attempt in 1.. {
            if self.runs.read(&mark).await?.is_some() {
                return Ok(());
            }
            let mut present = self.runs.pipelines.get(pipeline).await.map_err(fault_of_resources)?;
            let (record, mut queue) = self.queue(pipeline).await?;
            queue.pending.push(feedback.to_owned());
            present.pending_feedback_count = queue.pending.len() as i64;
            let body = Collection::encode(&present);
            let writes = vec![
                Write::Create { name: mark.clone(), body: Bytes::new(), request_id: None },
                put_queue(pipeline, record, &queue),
                Write::Update { name: pipeline.to_owned(), etag: present.etag, body },
            ];
            if self.runs.commit(Batch { writes, events: Vec::new() }, attempt).await? {
                tracing::info!(pipeline, feedback, pending = queue.pending.len(), "feedback counted");
                return Ok(());
            }
        }
        unreachable!("the last attempt ends with an error")
    }

    /// Begins a run if enough feedback waits, there is a champion to start from, and no run of the pipeline is in the way.
    pub(crate) async fn begin_if_due(&self, pipeline: &str) -> Result<(), Fault> {
        for attempt in 1.. {
            let mut present = match self.runs.pipelines.get(pipeline).await {
                Err(Error::NotFound(_)) => return Ok(()),
                present => present.map_err(fault_of_resources)?,
            };
            let (record, queue) = self.queue(pipeline).await?;
            let spec = present.spec.clone().unwrap_or_default();
            let Some(threshold) = spec.feedback.map(|feedback| feedback.threshold.max(1) as usize) else {
                return Ok(());
            };
            if queue.pending.len() < threshold || self.is_busy(&present, &queue).await? {
                return Ok(());
            }
            let serving = spec.serving.unwrap_or_default();
            if !self.has_champion(&crate::turn::alias_name(&serving)).await? {
                tracing::info!(pipeline, pending = queue.pending.len(), "feedback waits for a first champion");
                return Ok(());
            }
            let mut feedback = queue.pending;
            feedback.sort();
            present.pending_feedback_count = 0;
            let begin = runs::begin(&present, Trigger::Feedback, feedback, Default::default());
            let queue = Queue { pending: Vec::new(), last_run: begin.name.clone() };
            let mut writes = begin.writes;
            writes.push(put_queue(pipeline, record, &queue));
            if self.runs.commit(Batch { writes, events: vec![begin.event] }, attempt).await? {
                tracing::info!(run = begin.name, "enough feedback has come; a run begins");
                return Ok(());
            }
        }
        unreachable!("the last attempt ends with an error")
    }

    /// Whether the newest run, or the last that feedback began, is still going: the next starts from its champion.
    async fn is_busy(&self, pipeline: &Pipeline, queue: &Queue) -> Result<bool, Fault> {
        let newest = format!("{}/runs/{}", pipeline.name, pipeline.run_count);
        for name in [newest.as_str(), queue.last_run.as_str()].into_iter().filter(|name| !name.is_empty()) {
            match self.runs.runs.get(name).await {
                Ok(run) if !run.ended() => return Ok(true),
                Ok(_) | Err(Error::NotFound(_)) => {}
                Err(error) => return Err(fault_of_resources(error)),
            }
        }
        Ok(false)
    }

    async fn has_champion(&self, alias: &str) -> Result<bool, Fault> {
        let request = GetAliasRequest { name: alias.to_owned() };
        match self.clients.registry().get_alias(request).await {
            Ok(_) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(status.into()),
        }
    }

    async fn queue(&self, pipeline: &str) -> Result<(Option<Record>, Queue), Fault> {
        let record = self.runs.read(&queue_name(pipeline)).await?;
        let queue = match &record {
            Some(record) => Queue::decode(record.body.clone()).map_err(|error| {
                fault_of_resources(Error::Corrupt { name: record.name.clone(), reason: error.to_string() })
            })?,
            None => Queue::default(),
        };
        Ok((record, queue))
    }
}

fn queue_name(pipeline: &str) -> String {
    format!("{pipeline}/feedbackQueues/pending")
}

fn put_queue(pipeline: &str, record: Option<Record>, queue: &Queue) -> Write {
    let (name, body) = (queue_name(pipeline), Bytes::from(queue.encode_to_vec()));
    match record {
        Some(record) => Write::Update { name, etag: record.etag, body },
        None => Write::Create { name, body, request_id: None },
    }
}
