//! The models this process serves: one slot a deployment, brought into line with the registry again and again.
//!
//! Reconciling is driven by what is, not by what events say: an event only makes it happen sooner. A slot changes hands in one step;
//! requests that have begun keep the model they began with.

mod reconcile;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use tidemill_artifacts::Artifacts;
use tidemill_chassis::Fault;
use tidemill_platform::{Clients, Platform, fault_of_resources};
use tidemill_proto::inference::v1::Deployment;
use tidemill_proto::names;
use tidemill_resources::Collection;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::engine::Limits;
use crate::loaded::Loaded;

/// A model under the name of a deployment.
#[derive(Debug)]
pub(crate) struct Served {
    /// `deployments/{deployment}`.
    pub(crate) deployment: String,
    /// `models/{model}`.
    pub(crate) model: String,
    /// The version the alias pointed at.
    pub(crate) version: String,
    pub(crate) loaded: Arc<Loaded>,
}

/// All deployments of this process.
pub(crate) struct Fleet {
    deployments: Collection<Deployment>,
    clients: Clients,
    artifacts: Artifacts,
    /// Model folders by digest: a copy of what the artifact store holds, verified at every load.
    folders: PathBuf,
    limits: Limits,
    slots: RwLock<BTreeMap<String, Slot>>,
    news: Notify,
    /// Whether every deployment has been looked at once, and its model loaded if it has one: before that, others should get the calls.
    ready: watch::Sender<bool>,
    /// The engines' threads: a process that ended while one of them computes could crash inside libtorch.
    threads: TaskTracker,
}

/// What this process knows about one deployment.
#[derive(Clone, Debug, Default)]
struct Slot {
    model: String,
    current: Option<Arc<Served>>,
    /// Why there is no current one, or why a newer one does not load.
    detail: String,
    failure: Option<Failure>,
    /// Whether the registry could not be asked which version it is.
    unasked: bool,
}

/// A version that does not load, so that it is not tried again at once.
#[derive(Clone, Debug)]
struct Failure {
    digest: String,
    attempts: u32,
    not_before: Instant,
}

impl Fleet {
    pub(crate) fn new(platform: &Platform, limits: Limits) -> anyhow::Result<Self> {
        let folders = platform.work_dir("inference")?.join("models");
        std::fs::create_dir_all(&folders)?;
        Ok(Self {
            deployments: platform.collection(),
            clients: platform.clients.clone(),
            artifacts: platform.artifacts.clone(),
            folders,
            limits,
            slots: RwLock::default(),
            news: Notify::new(),
            ready: watch::Sender::new(false),
            threads: TaskTracker::new(),
        })
    }

    /// Makes the next reconciliation happen at once.
    pub(crate) fn ring(&self) {
        self.news.notify_one();
    }

    /// Turns true once this process can answer for every deployment.
    pub(crate) fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    /// The model behind a name: `sotu`, `deployments/sotu`, `models/sotu`.
    ///
    /// # Errors
    /// NOT_FOUND with what is served; UNAVAILABLE where it is not loaded yet, with the reason.
    pub(crate) async fn find(&self, wanted: &str) -> Result<Arc<Served>, Fault> {
        if wanted.is_empty() {
            return Err(Fault::invalid("model", "missing; send a deployment's id, such as one of ListDeployments"));
        }
        let by_deployment = match wanted.strip_prefix("models/") {
            Some(_) => None,
            None if wanted.starts_with("deployments/") => Some(wanted.to_owned()),
            None => Some(format!("deployments/{wanted}")),
        };
        let by_model = match wanted.strip_prefix("deployments/") {
            Some(_) => None,
            None if wanted.starts_with("models/") => Some(wanted.to_owned()),
            None => Some(format!("models/{wanted}")),
        };
        let slots = self.slots();
        let named = by_deployment.as_ref().and_then(|name| slots.get(name));
        let mut of_model = slots.values().filter(|slot| Some(&slot.model) == by_model.as_ref());
        let slot = named.or_else(|| of_model.clone().find(|slot| slot.current.is_some())).or_else(|| of_model.next());
        if let Some(slot) = slot {
            return slot
                .current
                .clone()
                .ok_or_else(|| Fault::unavailable(format!("{wanted} cannot answer yet: {}", slot.detail)));
        }
        // A deployment that was created a moment ago is not in a slot yet.
        if let Some(name) = by_deployment.filter(|name| names::ids(name, "deployments/-").is_ok()) {
            match self.deployments.get(&name).await {
                Ok(_) => return Err(Fault::unavailable(format!("{wanted} cannot answer yet: it was just created"))),
                Err(tidemill_resources::Error::NotFound(_)) => {}
                Err(error) => return Err(fault_of_resources(error)),
            }
        }
        let served: BTreeSet<&str> =
            slots.iter().filter(|(_, slot)| slot.current.is_some()).map(|(name, _)| names::last_id(name)).collect();
        let served = served.into_iter().collect::<Vec<_>>().join(", ");
        let served =
            if served.is_empty() { "nothing is served yet".to_owned() } else { format!("served are: {served}") };
        let mut fault = Fault::not_found(&format!("the model {wanted:?}"));
        fault.message = format!("{}; {served}", fault.message);
        Err(fault)
    }

    /// Whether no engine's thread is left.
    #[cfg(test)]
    pub(crate) fn idle(&self) -> bool {
        self.threads.is_empty()
    }

    /// The slots as they are now.
    fn slots(&self) -> BTreeMap<String, Slot> {
        self.slots.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, name: &str, slot: Slot) {
        self.slots.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), slot);
    }
}
