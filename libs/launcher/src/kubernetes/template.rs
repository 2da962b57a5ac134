//! The Job that a worker becomes: an operator's template, with the worker's command, environment and identity put into it.

use std::path::Path;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::EnvVar;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::Worker;

/// Label of a worker's Job and pods; its value is the Job's name.
pub(super) const WORKER: &str = "tidemill/worker";
/// Annotation of a worker's Job and pods: its id in full.
pub(super) const WORKER_ID: &str = "tidemill/worker-id";

/// Environment variable of a pod: how many ranks its worker has. This name and the next are those of PyTorch's launcher.
const WORLD_SIZE: &str = "WORLD_SIZE";
/// Environment variable of a pod: the name of the host of rank 0. A template may say another.
const MASTER_ADDR: &str = "MASTER_ADDR";

/// The template, as its file has it.
#[derive(Debug)]
pub(super) struct Template(Job);

impl Template {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it, by field.
    pub(super) fn read(path: &Path) -> Result<Template, String> {
        let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Template::parse(&text).map_err(|reason| format!("{}: {reason}", path.display()))
    }

    pub(super) fn parse(text: &str) -> Result<Template, String> {
        let given: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
        let job: Job = serde_json::from_value(given.clone())
            .map_err(|error| format!("it should hold one Job of batch/v1: {error}"))?;
        let known = serde_json::to_value(&job).map_err(|error| error.to_string())?;
        if let Some(field) = unknown(&given, &known) {
            return Err(format!("a Job has no field {field}"));
        }
        let pod = job.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        match pod.and_then(|pod| pod.containers.first()) {
            None => Err("spec.template.spec.containers is empty; its first becomes the worker".to_owned()),
            Some(container) if container.name.is_empty() => {
                Err("spec.template.spec.containers[0].name is missing; call it `worker`".to_owned())
            }
            Some(_) => Ok(Template(job)),
        }
    }

    /// The container that is the worker.
    pub(super) fn container(&self) -> &str {
        let pod = self.0.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        pod.and_then(|pod| pod.containers.first()).map_or("", |container| &container.name)
    }

    /// The Job of a worker: it runs once, and what fails is never tried again without its service's say, save a pod that was
    /// disrupted, where the template's `podFailurePolicy` says so. A pod is replaced only after it has ended: one worker at a time.
    ///
    /// # Errors
    /// Several ranks, and a template that does not say by which Service they find each other.
    pub(super) fn job(&self, worker: &Worker) -> Result<Job, String> {
        let mut job = self.0.clone();
        let name = job_name(&worker.id);
        for meta in [&mut job.metadata, job.spec.get_or_insert_default().template.metadata.get_or_insert_default()] {
            meta.labels.get_or_insert_default().insert(WORKER.to_owned(), name.clone());
            meta.annotations.get_or_insert_default().insert(WORKER_ID.to_owned(), worker.id.clone());
        }
        job.metadata.name = Some(name.clone());
        job.metadata.namespace = None;
        let spec = job.spec.get_or_insert_default();
        let ranks = i32::try_from(worker.ranks).map_err(|_| format!("{} ranks are too many", worker.ranks))?;
        spec.completion_mode = Some("Indexed".to_owned());
        (spec.completions, spec.parallelism, spec.backoff_limit) = (Some(ranks), Some(ranks), Some(0));
        spec.pod_replacement_policy = Some("Failed".to_owned());
        if ranks > 1 {
            // A rank that ends leaves it to the others to notice and to end with their own exit codes, where the Job would delete their
            // pods. None is replaced: a new one would wait for ranks that have gone.
            (spec.backoff_limit, spec.backoff_limit_per_index, spec.pod_failure_policy) = (None, Some(0), None);
        }
        let pod = spec.template.spec.get_or_insert_default();
        pod.restart_policy = Some("Never".to_owned());
        // A worker needs no credentials of the cluster.
        pod.automount_service_account_token.get_or_insert(false);
        let subdomain = pod.subdomain.clone();
        let container = &mut pod.containers[0];
        container.command = Some(worker.command.iter().map(|part| literal(part)).collect());
        container.args = None;
        let env = container.env.get_or_insert_default();
        let mut own = worker.env.clone();
        own.push((WORLD_SIZE.to_owned(), ranks.to_string()));
        if ranks > 1 && env.iter().all(|variable| variable.name != MASTER_ADDR) {
            let service = subdomain.ok_or(
                "spec.template.spec.subdomain is missing: it names the headless Service by which the ranks of a worker find each other",
            )?;
            own.push((MASTER_ADDR.to_owned(), format!("{name}-0.{service}")));
        }
        env.retain(|variable| own.iter().all(|(name, _)| *name != variable.name));
        env.extend(own.into_iter().map(|(name, value)| EnvVar {
            name,
            value: Some(literal(&value)),
            value_from: None,
        }));
        Ok(job)
    }
}

/// A DNS label made from an id: what can be read of it, and a digest that keeps different ids apart.
pub(super) fn job_name(id: &str) -> String {
    let readable: String = id.to_ascii_lowercase().replace('_', "-").chars().take(40).collect();
    let digest = Sha256::digest(id.as_bytes());
    let digest: String = digest[..5].iter().map(|byte| format!("{byte:02x}")).collect();
    // A label may begin with a letter only, for the sake of older names of services.
    match readable.trim_matches('-') {
        "" => format!("w-{digest}"),
        readable if readable.starts_with(|first: char| first.is_ascii_digit()) => format!("w-{readable}-{digest}"),
        readable => format!("{}-{digest}", readable),
    }
}

/// A text that the kubelet leaves as it is: it replaces `$(NAME)`, and `$$` by `$`.
fn literal(text: &str) -> String {
    text.replace('$', "$$")
}

/// The path of a field that was given, but has no meaning in a Job: a typing mistake would be dropped silently.
fn unknown(given: &Value, known: &Value) -> Option<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given.iter().find_map(|(name, value)| match known.get(name) {
            Some(known) => unknown(value, known).map(|path| match path.starts_with('[') {
                true => format!("{name}{path}"),
                false => format!("{name}.{path}"),
            }),
            // An empty value says nothing, and is not written again.
            None if value.is_null() || *value == Value::Array(Vec::new()) => None,
            None => Some(name.clone()),
        }),
        (Value::Array(given), Value::Array(known)) => given
            .iter()
            .zip(known)
            .enumerate()
            .find_map(|(at, (given, known))| unknown(given, known).map(|path| format!("[{at}].{path}"))),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
