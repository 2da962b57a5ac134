//! The beginning of runs: numbered 1, 2, 3 … by a counter on the pipeline. Counter, run and task are one batch.
//!
//! Beside a pipeline, `<pipeline>/runRequests/<hash of request_id>` holds the run that a request began, so that a retry finds it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tidemill_chassis::Fault;
use tidemill_platform::{Platform, event, fault_of_resources};
use tidemill_proto::event::v1::JobRequested;
use tidemill_proto::pipeline::v1::pipeline_run::Trigger;
use tidemill_proto::pipeline::v1::{Pipeline, PipelineRun};
use tidemill_proto::topics;
use tidemill_proto::r#type::v1::State;
use tidemill_resources::{Batch, Collection, Error, OutboxEvent, Record, Write};

/// How often a batch is made again when others write the same records in between.
const ATTEMPTS: u64 = 100;

/// Pipelines and their runs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Runs {
    pub(crate) pipelines: Collection<Pipeline>,
    pub(crate) runs: Collection<PipelineRun>,
}

/// A run about to begin.
pub(crate) struct Begin {
    /// Its name.
    pub(crate) name: String,
    /// The counter's and the run's write.
    pub(crate) writes: Vec<Write>,
    /// Its task.
    pub(crate) event: OutboxEvent,
}

impl Runs {
    pub(crate) fn new(platform: &Platform) -> Self {
        Self { pipelines: platform.collection(), runs: platform.collection() }
    }

    /// Begins a run because somebody asked. The same `request_id` again answers with the first run.
    pub(crate) async fn request(
        &self,
        pipeline: &str,
        labels: BTreeMap<String, String>,
        request_id: &str,
    ) -> Result<PipelineRun, Fault> {
        let marker = (!request_id.is_empty()).then(|| {
            let hash = uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, request_id.as_bytes());
            format!("{pipeline}/runRequests/{}", hash.simple())
        });
        for attempt in 1.. {
            let present = self.pipelines.get(pipeline).await.map_err(fault_of_resources)?;
            if let Some(marker) = &marker
                && let Some(record) = self.read(marker).await?
            {
                return self.runs.get(&String::from_utf8_lossy(&record.body)).await.map_err(fault_of_resources);
            }
            let begin = begin(&present, Trigger::Request, Vec::new(), labels.clone());
            let mut writes = begin.writes;
            if let Some(name) = marker.clone() {
                writes.push(Write::Create { name, body: Bytes::from(begin.name.clone()), request_id: None });
            }
            if self.commit(Batch { writes, events: vec![begin.event] }, attempt).await? {
                return self.runs.get(&begin.name).await.map_err(fault_of_resources);
            }
        }
        unreachable!("the last attempt ends with an error")
    }

    /// A record of the store, if it is there.
    pub(crate) async fn read(&self, name: &str) -> Result<Option<Record>, Fault> {
        match self.runs.store().get(name).await {
            Ok(record) => Ok(Some(record)),
            Err(Error::NotFound(_)) => Ok(None),
            Err(error) => Err(fault_of_resources(error)),
        }
    }

    /// Commits a batch; false says that somebody else was faster: make it again, as attempt number `attempt` + 1.
    pub(crate) async fn commit(&self, batch: Batch, attempt: u64) -> Result<bool, Fault> {
        match self.runs.store().commit(batch).await {
            Ok(_) => Ok(true),
            Err(Error::Conflict(_) | Error::AlreadyExists(_)) if attempt < ATTEMPTS => {
                tokio::time::sleep(Duration::from_millis(attempt.min(20))).await;
                Ok(false)
            }
            Err(error) => Err(fault_of_resources(error)),
        }
    }
}

/// The writes that begin the next run of a pipeline as it was read.
pub(crate) fn begin(
    pipeline: &Pipeline,
    trigger: Trigger,
    feedback: Vec<String>,
    labels: BTreeMap<String, String>,
) -> Begin {
    let number = pipeline.run_count + 1;
    let name = format!("{}/runs/{number}", pipeline.name);
    let counted = Pipeline { run_count: number, ..pipeline.clone() };
    let mut run = PipelineRun { labels, spec: pipeline.spec.clone(), feedback, ..PipelineRun::default() };
    run.set_trigger(trigger);
    run.set_state(State::Pending);
    let count =
        Write::Update { name: pipeline.name.clone(), etag: pipeline.etag.clone(), body: Collection::encode(&counted) };
    let create = Write::Create { name: name.clone(), body: Collection::encode(&run), request_id: None };
    let event = event(topics::PIPELINE_TASKS, &name, &JobRequested { job: name.clone() });
    Begin { name, writes: vec![count, create], event }
}
