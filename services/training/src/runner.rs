//! Runs a job: a worker trains, then the model is registered with where it came from.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use tidemill_artifacts::{Digest, Manifest};
use tidemill_chassis::Fault;
use tidemill_platform::worker::{self, Launch, Report};
use tidemill_platform::{Context, Platform, Runner, fault_of_artifacts};
use tidemill_proto::registry::v1::lineage_node::Type;
use tidemill_proto::registry::v1::{
    CreateModelVersionRequest, LineageEdge, LineageNode, ModelVersion, RecordLineageRequest,
};
use tidemill_proto::training::v1::TrainingJob;

use crate::gauges::Gauges;
use crate::history::{self, MetricPoint};
use crate::worker::{Assignment, history_reference, plot_reference};

/// How often the stored job gets the curve so far.
const STORE_EVERY: Duration = Duration::from_secs(2);

pub(crate) struct TrainingRunner {
    pub(crate) platform: Platform,
    pub(crate) threads: usize,
}

#[async_trait]
impl Runner<TrainingJob> for TrainingRunner {
    async fn run(&self, job: TrainingJob, context: &Context<TrainingJob>) -> Result<TrainingJob, Fault> {
        let mut done = match self.result(&job).await? {
            Some(_) => job,
            None => self.train(job, context).await?,
        };
        let digest = self
            .result(&done)
            .await?
            .ok_or_else(|| Fault::internal(format!("the worker of {} ended well, but left no result", done.name)))?;
        let model = self.platform.artifacts.manifest(&digest).await.map_err(fault_of_artifacts)?;
        done.step = annotation(&model, "step");
        done.history = self.history(&done.uid).await?;
        done.plot_digest = self.resolve(&plot_reference(&done.uid)).await?.map_or_else(String::new, |d| d.to_string());
        done.model_digest = digest.to_string();
        done.model_version = self.register(&done, &model).await?;
        done.progress = None;
        // What it kept for the next start is of no use any more; should this fail, it only takes room.
        let _left = std::fs::remove_dir_all(self.work_dir(&done.uid)?);
        Ok(done)
    }
}

impl TrainingRunner {
    async fn result(&self, job: &TrainingJob) -> Result<Option<Digest>, Fault> {
        self.resolve(&worker::result_reference(&job.uid)).await
    }

    async fn resolve(&self, reference: &str) -> Result<Option<Digest>, Fault> {
        self.platform.artifacts.resolve(reference).await.map_err(fault_of_artifacts)
    }

    fn work_dir(&self, uid: &str) -> Result<std::path::PathBuf, Fault> {
        Ok(self.platform.work_dir("training").map_err(Fault::internal)?.join(uid))
    }

    /// Lets a worker train to the end, and keeps the stored job abreast of it.
    async fn train(&self, job: TrainingJob, context: &Context<TrainingJob>) -> Result<TrainingJob, Fault> {
        let launch = Launch {
            service: "training",
            arguments: worker::WorkerArguments {
                job: job.name.clone(),
                uid: job.uid.clone(),
                artifacts_url: self.platform.artifacts_url().to_owned(),
                work_dir: self.work_dir(&job.uid)?,
                spec: Assignment { threads: self.threads, job: job.clone() }.encode(),
            },
            ranks: job.spec.as_ref().map_or(1, |spec| spec.ranks.max(1) as usize),
        };
        // What a former process has stored, where the worker's own words are gone.
        let curve = Mutex::new(job.history.iter().cloned().map(MetricPoint::from).collect::<Vec<_>>());
        let mut gauges = Gauges::new(&job.model, job.step);
        let on_report = |report: &Report| {
            gauges.report(report);
            let mut report = report.clone();
            if report.metrics.contains_key("loss") {
                report.metrics.insert("goodput".to_owned(), gauges.goodput());
            }
            curve.lock().expect("no holder of this lock panics").extend(history::point_of(&report));
            context.progress(report.into());
        };
        let restarts_before = job.restart_count;
        let on_start = move |job: &mut TrainingJob, handle: &str, restarts: u32| {
            job.worker = handle.to_owned();
            job.restart_count = restarts_before + restarts as i32;
        };
        let store = async || {
            let points = history::thin(curve.lock().expect("no holder of this lock panics").clone());
            let Some(step) = points.last().map(|point| point.step) else { return };
            let changed = context.update(|job| {
                job.step = step;
                job.history = points.iter().cloned().map(Into::into).collect();
            });
            if let Err(error) = changed.await {
                tracing::warn!(job = job.name, %error, "the curve cannot be stored on the job");
            }
        };
        let storing = async {
            loop {
                tokio::time::sleep(STORE_EVERY).await;
                store().await;
            }
        };
        let ran = tokio::select! {
            ran = worker::run(&self.platform, context, launch, on_report, on_start) => ran,
            () = storing => unreachable!("storing never ends"),
        };
        // Also of a run that failed: how it came there is on its curve.
        store().await;
        ran?;
        context.update(|_| {}).await
    }

    async fn history(&self, uid: &str) -> Result<Vec<tidemill_proto::training::v1::training_job::MetricPoint>, Fault> {
        let Some(digest) = self.resolve(&history_reference(uid)).await? else { return Ok(Vec::new()) };
        let bytes = self.platform.artifacts.get(&digest).await.map_err(fault_of_artifacts)?;
        let points: Vec<MetricPoint> = serde_json::from_slice(&bytes).map_err(Fault::internal)?;
        Ok(points.into_iter().map(Into::into).collect())
    }

    /// Registers the model under a request id of the job's own, so that a second time gives the same version.
    async fn register(&self, job: &TrainingJob, model: &Manifest) -> Result<String, Fault> {
        let tokenizer_digest = model.annotations.get("tokenizer_digest").cloned().unwrap_or_default();
        let mut registry = self.platform.clients.registry();
        let version = ModelVersion {
            labels: job.labels.clone(),
            digest: job.model_digest.clone(),
            training_job: job.name.clone(),
            dataset_digest: job.dataset_digest.clone(),
            tokenizer_digest: tokenizer_digest.clone(),
            base_model_digest: job.base_model_digest.clone(),
            parameter_count: annotation(model, "parameter_count"),
            ..ModelVersion::default()
        };
        let key = format!("tidemill/training/{}", job.uid);
        let request = CreateModelVersionRequest {
            parent: job.model.clone(),
            model_version: Some(version),
            request_id: uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, key.as_bytes()).to_string(),
            ..CreateModelVersionRequest::default()
        };
        let version = registry.create_model_version(request).await.map_err(Fault::from)?.into_inner();
        registry.record_lineage(lineage(job, &version.name, &tokenizer_digest)).await.map_err(Fault::from)?;
        Ok(version.name)
    }
}

/// The model came from its dataset, its tokenizer and the model it started from.
fn lineage(job: &TrainingJob, version: &str, tokenizer_digest: &str) -> RecordLineageRequest {
    let attributes =
        BTreeMap::from([("training_job".to_owned(), job.name.clone()), ("steps".to_owned(), job.step.to_string())]);
    let model = LineageNode {
        id: job.model_digest.clone(),
        r#type: Type::Model.into(),
        resource: version.to_owned(),
        attributes,
        ..LineageNode::default()
    };
    let teacher = job.spec.as_ref().and_then(|spec| spec.distillation.as_ref());
    let teacher = teacher.map_or("", |asked| asked.teacher_model_digest.as_str());
    let mixed = job.mixed_datasets.iter().map(|more| (more.dataset_digest.as_str(), Type::PreparedDataset));
    let sources = [
        (job.dataset_digest.as_str(), Type::PreparedDataset),
        (tokenizer_digest, Type::Tokenizer),
        (job.base_model_digest.as_str(), Type::Model),
        (teacher, Type::Model),
    ];
    let mut request = RecordLineageRequest { nodes: vec![model], edges: Vec::new() };
    for (id, r#type) in sources.into_iter().chain(mixed).filter(|(id, _)| !id.is_empty()) {
        request.nodes.push(LineageNode { id: id.to_owned(), r#type: r#type.into(), ..LineageNode::default() });
        request.edges.push(LineageEdge { parent: id.to_owned(), child: job.model_digest.clone() });
    }
    request
}

fn annotation(manifest: &Manifest, key: &str) -> i64 {
    manifest.annotations.get(key).and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_leads_back_to_all_it_came_from() {
        let job = TrainingJob {
            name: "trainingJobs/a".to_owned(),
            dataset_digest: "sha256:d".to_owned(),
            model_digest: "sha256:m".to_owned(),
            step: 7,
            ..TrainingJob::default()
        };
        let parents = |request: &RecordLineageRequest| -> Vec<String> {
            assert!(request.edges.iter().all(|edge| edge.child == "sha256:m"));
            request.edges.iter().map(|edge| edge.parent.clone()).collect()
        };
        let fresh = lineage(&job, "models/x/versions/1", "sha256:t");
        assert_eq!(parents(&fresh), ["sha256:d", "sha256:t"]);
        assert_eq!(fresh.nodes[0].attributes["training_job"], "trainingJobs/a");
        let tuned = TrainingJob { base_model_digest: "sha256:b".to_owned(), ..job };
        assert_eq!(parents(&lineage(&tuned, "models/x/versions/2", "sha256:t")), ["sha256:d", "sha256:t", "sha256:b"]);
    }
}
