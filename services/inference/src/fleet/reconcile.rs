//! Brings slots into line with the registry: one pass over all deployments, sooner when news comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tidemill_artifacts::Digest;
use tidemill_chassis::Fault;
use tidemill_platform::{fault_of_artifacts, fault_of_resources, models};
use tidemill_proto::inference::v1::Deployment;
use tidemill_proto::inference::v1::deployment::Status;
use tidemill_proto::registry::v1::{Alias, GetAliasRequest};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Code;

use super::{Failure, Fleet, Served, Slot};
use crate::loaded::Loaded;

/// Longest wait before a version that does not load is tried again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

impl Fleet {
    /// Reconciles until stopped: at once, at news, and every `pause`. Then takes no more requests, and waits for those in flight.
    pub(crate) async fn run(self: Arc<Self>, pause: Duration, stop: CancellationToken) {
        let rounds = async {
            loop {
                if let Err(fault) = self.reconcile(pause).await {
                    tracing::warn!(error = %fault, "deployments cannot be reconciled; trying again");
                }
                tokio::select! {
                    () = self.news.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
            }
        };
        stop.run_until_cancelled(rounds).await;
        for slot in self.slots.write().unwrap_or_else(PoisonError::into_inner).values_mut() {
            *slot =
                Slot { model: slot.model.clone(), detail: "this process is stopping".to_owned(), ..Slot::default() };
        }
        self.threads.close();
        self.threads.wait().await;
    }

    async fn reconcile(&self, pause: Duration) -> Result<(), Fault> {
        let mut all_asked = true;
        let deployments = self.deployments.all("").await.map_err(fault_of_resources)?;
        let mut counts = BTreeMap::from([("degraded", 0), ("ready", 0), ("waiting", 0)]);
        for deployment in &deployments {
            let before = self.slots().remove(&deployment.name).unwrap_or_default();
            let slot = self.reconcile_one(deployment, before, pause).await;
            self.set(&deployment.name, slot.clone());
            all_asked &= !slot.unasked;
            if slot.has_news(deployment) {
                self.tell(deployment, &slot).await?;
            }
            *counts.entry(slot.status().1).or_default() += 1;
        }
        if all_asked {
            self.ready.send_replace(true);
        }
        for (status, count) in counts {
            metrics::gauge!("tidemill_inference_deployments", "status" => status).set(f64::from(count));
        }
        Ok(())
    }

    async fn reconcile_one(&self, deployment: &Deployment, before: Slot, pause: Duration) -> Slot {
        let mut slot = Slot { model: deployment.model.clone(), unasked: false, ..before };
        let name = format!("{}/aliases/{}", deployment.model, deployment.alias);
        let alias = match self.clients.registry().get_alias(GetAliasRequest { name: name.clone() }).await {
            Ok(alias) => alias.into_inner(),
            Err(status) => {
                if status.code() == Code::NotFound {
                    slot.detail = format!("waiting for the first version of {name}");
                } else {
                    tracing::warn!(
                        deployment = deployment.name,
                        error = status.message(),
                        "the registry does not answer"
                    );
                    slot.detail = format!("the registry does not answer: {}", status.message());
                    slot.unasked = true;
                }
                return slot;
            }
        };
        if slot.current.as_ref().is_some_and(|current| current.loaded.digest == alias.digest) {
            return Slot { detail: String::new(), failure: None, ..slot };
        }
        let failed = slot.failure.take_if(|failure| failure.digest == alias.digest);
        if let Some(failure) = &failed
            && Instant::now() < failure.not_before
        {
            return Slot { failure: failed, ..slot };
        }
        if slot.current.is_none() {
            let loading = Slot { detail: format!("loading {}", alias.digest), ..slot.clone() };
            self.set(&deployment.name, loading);
        }
        match self.load(&alias.digest).await {
            Ok(loaded) => {
                tracing::info!(
                    deployment = deployment.name,
                    version = alias.model_version,
                    digest = alias.digest,
                    "serving"
                );
                let current = served(deployment, &alias, loaded);
                let slot = Slot { current: Some(current), detail: String::new(), failure: None, ..slot };
                self.set(&deployment.name, slot.clone());
                self.prune().await;
                slot
            }
            Err(fault) => {
                tracing::error!(deployment = deployment.name, version = alias.model_version, error = %fault, "a version does not load");
                let attempts = failed.map_or(0, |failure| failure.attempts) + 1;
                let wait = LONGEST_WAIT.min(pause * 2u32.saturating_pow(attempts.min(16)));
                let failure = Failure { digest: alias.digest, attempts, not_before: Instant::now() + wait };
                Slot {
                    detail: format!("{} does not load: {fault}", alias.model_version),
                    failure: Some(failure),
                    ..slot
                }
            }
        }
    }

    /// The model of a digest: one that is in memory already, or read from the artifact store by way of the local folder.
    async fn load(&self, digest: &str) -> Result<Arc<Loaded>, Fault> {
        let present =
            self.slots().into_values().filter_map(|slot| slot.current).find(|served| served.loaded.digest == digest);
        if let Some(served) = present {
            return Ok(served.loaded.clone());
        }
        let began = Instant::now();
        let parsed: Digest = digest.parse().map_err(fault_of_artifacts)?;
        let folder = self.folders.join(parsed.hex());
        models::fetch(&self.artifacts, &parsed, &folder).await.map_err(fault_of_artifacts)?;
        let (name, limits, threads) = (digest.to_owned(), self.limits, self.threads.clone());
        let loaded = tokio::task::spawn_blocking(move || Loaded::read(&folder, &name, limits, &threads)).await;
        match loaded {
            Ok(Ok(loaded)) => {
                metrics::histogram!("tidemill_inference_model_load_seconds").record(began.elapsed());
                Ok(Arc::new(loaded))
            }
            Ok(Err(error)) => {
                Err(Fault::precondition("MODEL_NOT_LOADABLE", digest, format!("model {digest}: {error}")))
            }
            Err(panic) => Err(Fault::internal(format!("loading {digest} panicked: {panic}"))),
        }
    }

    /// Deletes local folders of models that are served no more, and what a killed process left.
    async fn prune(&self) {
        let keep: BTreeSet<String> = self
            .slots()
            .into_values()
            .filter_map(|slot| slot.current)
            .filter_map(|served| Some(served.loaded.digest.strip_prefix("sha256:")?.to_owned()))
            .collect();
        let folders = self.folders.clone();
        let pruned = tokio::task::spawn_blocking(move || {
            for entry in std::fs::read_dir(&folders)? {
                let entry = entry?;
                if !keep.contains(&*entry.file_name().to_string_lossy()) {
                    std::fs::remove_dir_all(entry.path())?;
                }
            }
            Ok::<_, std::io::Error>(())
        });
        if let Ok(Err(error)) = pruned.await {
            tracing::warn!(%error, folder = %self.folders.display(), "old model folders cannot be deleted");
        }
    }

    /// Writes into the resource what the slot says; nothing if it says so already.
    async fn tell(&self, deployment: &Deployment, slot: &Slot) -> Result<(), Fault> {
        let (version, digest) = slot
            .current
            .as_ref()
            .map_or((String::new(), String::new()), |current| (current.version.clone(), current.loaded.digest.clone()));
        let (status, _) = slot.status();
        let told = self.deployments.modify(&deployment.name, |known| {
            if known.model_digest != digest && !digest.is_empty() {
                known.load_count += 1;
            }
            known.model_version.clone_from(&version);
            known.model_digest.clone_from(&digest);
            known.set_status(status);
            known.detail.clone_from(&slot.detail);
            Ok::<_, tidemill_resources::Error>(Vec::new())
        });
        told.await.map(|_| ()).map_err(fault_of_resources)
    }
}

impl Slot {
    /// Whether the resource should say what this slot says. Several replicas write it: one that has no model yet keeps silent about
    /// a deployment that another one serves.
    fn has_news(&self, deployment: &Deployment) -> bool {
        self.current.is_some() || self.failure.is_some() || deployment.model_digest.is_empty()
    }

    /// How a deployment stands, and how metrics call it.
    fn status(&self) -> (Status, &'static str) {
        match (&self.failure, &self.current) {
            (Some(_), _) => (Status::Degraded, "degraded"),
            (None, Some(_)) => (Status::Ready, "ready"),
            (None, None) => (Status::Waiting, "waiting"),
        }
    }
}

fn served(deployment: &Deployment, alias: &Alias, loaded: Arc<Loaded>) -> Arc<Served> {
    Arc::new(Served {
        deployment: deployment.name.clone(),
        model: deployment.model.clone(),
        version: alias.model_version.clone(),
        loaded,
    })
}
