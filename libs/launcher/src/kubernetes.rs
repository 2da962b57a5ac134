//! The cluster's adapter: a Job a worker, a pod a rank. `README.md` says what it needs of the cluster, and what a cluster cannot promise.

mod ending;
mod output;
mod standing;
mod template;
mod url;

use std::time::Duration;

use async_trait::async_trait;
use futures::{Stream, StreamExt, TryStreamExt, stream};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams, PostParams};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, watcher};
use kube::{Client, Config};

use crate::{Error, Exit, Launcher, Result, Signal, Status, Worker, check};
use output::Outputs;
use standing::Standing;
use template::Template;

/// How long a cluster may take for a step that takes it seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a wait relies on its watch alone: one that breaks begins anew ever more slowly, and one may be half open.
const LOOK: Duration = Duration::from_secs(10);
/// How long a start waits for the cluster to make the pod, so that its name is known. A queued worker has none for hours.
const POD_PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct KubernetesLauncher {
    url: String,
    jobs: Api<Job>,
    pods: Api<Pod>,
    template: Template,
    outputs: Outputs,
}

impl KubernetesLauncher {
    /// Reads the template and the credentials. The cluster itself need not answer yet.
    pub(crate) async fn open(url: &str) -> Result<KubernetesLauncher> {
        let unavailable = |reason: String| Error::Unavailable { url: url.to_owned(), reason };
        let address = url::parse(url).map_err(unavailable)?;
        let template = Template::read(&address.job_template).map_err(unavailable)?;
        let config = Config::infer().await.map_err(|error| unavailable(explain(&error)))?;
        let namespace = address.namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config).map_err(|error| unavailable(explain(&error)))?;
        Ok(KubernetesLauncher::new(url, client, &namespace, template))
    }

    fn new(url: &str, client: Client, namespace: &str, template: Template) -> KubernetesLauncher {
        KubernetesLauncher {
            url: url.to_owned(),
            jobs: Api::namespaced(client.clone(), namespace),
            pods: Api::namespaced(client, namespace),
            template,
            outputs: Outputs::default(),
        }
    }

    /// What the API knows of a worker now.
    async fn look(&self, id: &str) -> Result<Standing> {
        self.try_look(id).await.map_err(|error| self.failed(&error))
    }

    async fn try_look(&self, id: &str) -> kube::Result<Standing> {
        let name = template::job_name(id);
        let job = self.jobs.get_opt(&name).await?;
        let pods = ListParams::default().labels(&format!("{}={name}", template::WORKER));
        Ok(Standing { job, pods: self.pods.list(&pods).await?.items })
    }

    /// Something for each time that the worker may stand differently, at once to begin with. A watch that expires or breaks is begun
    /// anew, and counts as a change too.
    fn changes(&self, id: &str) -> impl Stream<Item = ()> + Send + use<> {
        let name = template::job_name(id);
        let job = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let pods = watcher::Config::default().labels(&format!("{}={name}", template::WORKER));
        let job = watcher(self.jobs.clone(), job).default_backoff().map_ok(|event| is_news(&event));
        let pods = watcher(self.pods.clone(), pods).default_backoff().map_ok(|event| is_news(&event));
        stream::select(job, pods).filter_map(|event| std::future::ready(event.unwrap_or(true).then_some(())))
    }

    /// Waits until a worker stands as wanted. An API server that is away for a while only makes it wait longer: workers run on.
    async fn until<T>(&self, id: &str, mut wanted: impl FnMut(&Standing) -> Option<T>) -> Result<T> {
        let mut changes = std::pin::pin!(self.changes(id));
        loop {
            let _sooner_or_later = tokio::time::timeout(LOOK, changes.next()).await;
            match self.try_look(id).await {
                Ok(standing) => {
                    if let Some(found) = wanted(&standing) {
                        return Ok(found);
                    }
                }
                Err(kube::Error::Api(status)) if (400..500).contains(&status.code) && status.code != 429 => {
                    return Err(self.failed(&kube::Error::Api(status)));
                }
                Err(error) => {
                    tracing::warn!(worker = id, error = explain(&error), "the cluster's API is away; waiting on")
                }
            }
        }
    }

    async fn until_gone(&self, id: &str) -> Result<()> {
        let gone = self.until(id, |standing| (standing.job.is_none() && standing.pods.is_empty()).then_some(()));
        tokio::time::timeout(PATIENCE, gone).await.unwrap_or_else(|_| {
            let name = template::job_name(id);
            let reason = format!("Job {name} is still being deleted; does the node of its pod answer?");
            Err(Error::Unavailable { url: self.url.clone(), reason })
        })
    }

    fn status_of(&self, id: &str, standing: &Standing) -> Status {
        let status = standing.status(self.template.container());
        self.outputs.saw(id, matches!(status, Status::Exited(_)));
        status
    }

    fn failed(&self, error: &kube::Error) -> Error {
        let reason = match error {
            kube::Error::Api(status) if status.is_forbidden() => {
                format!("{}; grant the Role of libs/launcher/README.md to this service account", status.message)
            }
            kube::Error::Api(status) => status.message.clone(),
            error => explain(error),
        };
        Error::Unavailable { url: self.url.clone(), reason }
    }
}

#[async_trait]
impl Launcher for KubernetesLauncher {
    async fn start(&self, worker: &Worker) -> Result<()> {
        check::worker(worker)?;
        let job = self.template.job(worker);
        let job = job.map_err(|reason| Error::Invalid { id: worker.id.clone(), reason })?;
        loop {
            match self.jobs.create(&PostParams::default(), &job).await {
                Ok(_) => break,
                Err(kube::Error::Api(status)) if status.is_already_exists() => {
                    let Some(present) = self.look(&worker.id).await?.job else { continue };
                    if present.metadata.annotations.as_ref().and_then(|all| all.get(template::WORKER_ID))
                        != Some(&worker.id)
                    {
                        let name = present.metadata.name.unwrap_or_default();
                        let reason = format!("Job {name} exists, but is not ours; delete it or use another namespace");
                        return Err(Error::Invalid { id: worker.id.clone(), reason });
                    }
                    if present.metadata.deletion_timestamp.is_none() {
                        return Ok(());
                    }
                    self.until_gone(&worker.id).await?;
                }
                Err(kube::Error::Api(status)) if status.is_invalid() => {
                    return Err(Error::Invalid { id: worker.id.clone(), reason: status.message.clone() });
                }
                Err(error) => return Err(self.failed(&error)),
            }
        }
        tracing::debug!(worker = worker.id, job = job.metadata.name, "worker's Job created");
        let pod = self.until(&worker.id, |standing| (standing.pod().is_some() || standing.is_queued()).then_some(()));
        // Only to know its name: without room there is no pod yet, and the worker starts when there is.
        let _queued = tokio::time::timeout(POD_PATIENCE, pod).await;
        Ok(())
    }

    async fn status(&self, id: &str) -> Result<Status> {
        check::id(id)?;
        Ok(self.status_of(id, &self.look(id).await?))
    }

    async fn wait(&self, id: &str) -> Result<Exit> {
        check::id(id)?;
        let exit = |standing: &Standing| match self.status_of(id, standing) {
            Status::Running { .. } => None,
            Status::Exited(exit) => Some((exit, standing.ranks())),
            Status::Unknown => Some((Exit::Lost, 1)),
        };
        let (exit, ranks) = self.until(id, exit).await?;
        if ranks > 1 {
            self.end_stragglers(id).await?;
        }
        Ok(exit)
    }

    async fn signal(&self, id: &str, signal: Signal) -> Result<()> {
        check::id(id)?;
        match signal {
            Signal::Terminate => self.terminate(id).await,
            Signal::Kill => self.kill(id).await,
        }
    }

    async fn log(&self, id: &str, offset: u64) -> Result<Vec<u8>> {
        check::id(id)?;
        self.read_output(id, offset).await
    }

    async fn reap(&self, id: &str) -> Result<()> {
        check::id(id)?;
        self.delete(id).await?;
        self.until_gone(id).await?;
        self.outputs.forget(id);
        Ok(())
    }
}

/// Whether the worker may stand differently after this event.
fn is_news<K>(event: &watcher::Event<K>) -> bool {
    matches!(event, watcher::Event::InitDone | watcher::Event::Apply(_) | watcher::Event::Delete(_))
}

/// An error with its causes, on one line.
fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
