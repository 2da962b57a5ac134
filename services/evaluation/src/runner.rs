//! Runs an evaluation: a worker measures, then the figures are attached to the model version that they are of.

use std::collections::BTreeMap;

use async_trait::async_trait;
use tidemill_artifacts::Digest;
use tidemill_chassis::Fault;
use tidemill_platform::worker::{self, Launch, Report};
use tidemill_platform::{Context, Platform, Runner, fault_of_artifacts};
use tidemill_proto::evaluation::v1::{Evaluation, evaluation};
use tidemill_proto::registry::v1::lineage_node::Type;
use tidemill_proto::registry::v1::{
    EvaluationResult, LineageEdge, LineageNode, RecordEvaluationRequest, RecordLineageRequest,
};

use crate::assignment::Assignment;
use crate::outcome::Outcome;

pub(crate) struct EvaluationRunner {
    pub(crate) platform: Platform,
    pub(crate) threads: usize,
}

#[async_trait]
impl Runner<Evaluation> for EvaluationRunner {
    async fn run(&self, evaluation: Evaluation, context: &Context<Evaluation>) -> Result<Evaluation, Fault> {
        let mut done = match self.result(&evaluation).await? {
            Some(_) => evaluation,
            None => self.measure(evaluation, context).await?,
        };
        let digest = self
            .result(&done)
            .await?
            .ok_or_else(|| Fault::internal(format!("the worker of {} ended well, but left no result", done.name)))?;
        let bytes = self.platform.artifacts.get(&digest).await.map_err(fault_of_artifacts)?;
        let outcome: Outcome = serde_json::from_slice(&bytes).map_err(Fault::internal)?;
        let sample = |sample: crate::outcome::Sample| evaluation::Sample {
            prompt: sample.prompt,
            completion: sample.completion,
        };
        done.metrics = outcome.metrics;
        done.samples = outcome.samples.into_iter().map(sample).collect();
        done.measured_bytes = outcome.measured_bytes as i64;
        done.suite_digest = outcome.suite_digest;
        done.digest = digest.to_string();
        done.progress = None;
        self.record(&done).await?;
        // The model's copy is of no use any more; should this fail, it only takes room.
        let _left = std::fs::remove_dir_all(self.work_dir(&done.uid)?);
        Ok(done)
    }
}

impl EvaluationRunner {
    async fn result(&self, evaluation: &Evaluation) -> Result<Option<Digest>, Fault> {
        let reference = worker::result_reference(&evaluation.uid);
        self.platform.artifacts.resolve(&reference).await.map_err(fault_of_artifacts)
    }

    fn work_dir(&self, uid: &str) -> Result<std::path::PathBuf, Fault> {
        Ok(self.platform.work_dir("evaluation").map_err(Fault::internal)?.join(uid))
    }

    /// Lets a worker measure, and tells how far it is.
    async fn measure(&self, evaluation: Evaluation, context: &Context<Evaluation>) -> Result<Evaluation, Fault> {
        let launch = Launch {
            service: "evaluation",
            arguments: worker::WorkerArguments {
                job: evaluation.name.clone(),
                uid: evaluation.uid.clone(),
                artifacts_url: self.platform.artifacts_url().to_owned(),
                work_dir: self.work_dir(&evaluation.uid)?,
                spec: Assignment { threads: self.threads, evaluation: evaluation.clone() }.encode(),
            },
            ranks: 1,
        };
        let on_report = |report: &Report| context.progress(report.clone().into());
        let restarts_before = evaluation.restart_count;
        let on_start = move |evaluation: &mut Evaluation, handle: &str, restarts: u32| {
            handle.clone_into(&mut evaluation.worker);
            evaluation.restart_count = restarts_before + restarts as i32;
        };
        worker::run(&self.platform, context, launch, on_report, on_start).await?;
        context.update(|_| {}).await
    }

    /// Tells the registry: the figures, and what they came from. A second time changes nothing.
    async fn record(&self, done: &Evaluation) -> Result<(), Fault> {
        let mut registry = self.platform.clients.registry();
        let result = EvaluationResult {
            evaluation: done.name.clone(),
            model_digest: done.model_digest.clone(),
            dataset_digest: done.dataset_digest.clone(),
            suite_digest: done.suite_digest.clone(),
            metrics: done.metrics.clone(),
        };
        let request = RecordEvaluationRequest { name: done.model_version.clone(), result: Some(result) };
        registry.record_evaluation(request).await.map_err(Fault::from)?;
        registry.record_lineage(lineage(done)).await.map_err(Fault::from)?;
        Ok(())
    }
}

/// The result came from the model and the dataset.
fn lineage(done: &Evaluation) -> RecordLineageRequest {
    let figures = done.metrics.iter().map(|(name, value)| (name.clone(), format!("{value:.4}")));
    let result = LineageNode {
        id: done.digest.clone(),
        r#type: Type::Evaluation.into(),
        resource: done.name.clone(),
        attributes: figures.collect::<BTreeMap<_, _>>(),
        ..LineageNode::default()
    };
    let mut request = RecordLineageRequest { nodes: vec![result], edges: Vec::new() };
    for (id, r#type, resource) in [
        (&done.model_digest, Type::Model, done.model_version.as_str()),
        (&done.dataset_digest, Type::PreparedDataset, ""),
    ] {
        let (id, resource) = (id.clone(), resource.to_owned());
        request.edges.push(LineageEdge { parent: id.clone(), child: done.digest.clone() });
        request.nodes.push(LineageNode { id, r#type: r#type.into(), resource, ..LineageNode::default() });
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_leads_back_to_its_model_and_its_dataset() {
        let done = Evaluation {
            name: "evaluations/a".to_owned(),
            digest: "sha256:r".to_owned(),
            model_digest: "sha256:m".to_owned(),
            dataset_digest: "sha256:d".to_owned(),
            model_version: "models/x/versions/1".to_owned(),
            metrics: [("bits_per_byte".to_owned(), 1.23456)].into(),
            ..Evaluation::default()
        };
        let request = lineage(&done);
        assert_eq!(request.nodes[0].attributes["bits_per_byte"], "1.2346");
        let edges: Vec<_> = request.edges.iter().map(|edge| (edge.parent.as_str(), edge.child.as_str())).collect();
        assert_eq!(edges, [("sha256:m", "sha256:r"), ("sha256:d", "sha256:r")]);
    }
}
