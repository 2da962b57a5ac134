//! Long work as a resource: accepted durably, run by whoever takes its task, watched, cancelled, and told about when it ends.
//!
//! ```text
//!   Create ──> resource PENDING + JobRequested (one transaction) ──> task topic ──> Runner::run ──> SUCCEEDED | FAILED
//!   Cancel ──> CANCELLED at once; the runner notices and leaves        (crash: the task comes again, and run must start over safely)
//! ```

mod context;
mod run;
mod states;
mod watch;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use prost::Message;
use tidemill_cache::Cache;
use tidemill_chassis::Fault;
use tidemill_eventlog::Log;
use tidemill_proto::event::v1::{JobEnded, JobRequested};
use tidemill_proto::r#type::v1::{Progress, State};
use tidemill_proto::{Job, names};
use tidemill_resources::{Collection, ListPage, OutboxEvent, Page};
use tokio_util::sync::CancellationToken;

pub use context::Context;
pub use run::Runner;

use crate::{Platform, event, fault_of_resources};

/// Jobs of one kind. Cheap to clone.
pub struct Jobs<J> {
    collection: Collection<J>,
    log: Arc<dyn Log>,
    cache: Arc<dyn Cache>,
    live: Arc<Live>,
    service: &'static str,
    tasks: &'static str,
    events: &'static str,
}

impl<J> Clone for Jobs<J> {
    fn clone(&self) -> Self {
        Self {
            collection: self.collection.clone(),
            log: self.log.clone(),
            cache: self.cache.clone(),
            live: self.live.clone(),
            service: self.service,
            tasks: self.tasks,
            events: self.events,
        }
    }
}

/// Progress of the jobs that run in this process, and a bell that rings when it changes.
struct Live {
    progress: Mutex<BTreeMap<String, Progress>>,
    bell: tokio::sync::watch::Sender<u64>,
    /// Cancelled when the process stops: whoever watches should watch another replica.
    stopping: CancellationToken,
}

impl<J: Job> Jobs<J> {
    /// Jobs of a service, with its task topic and the topic that tells of their ends.
    pub fn new(platform: &Platform, service: &'static str, tasks: &'static str, events: &'static str) -> Self {
        Self {
            collection: platform.collection(),
            log: platform.log.clone(),
            cache: platform.cache.clone(),
            live: Arc::new(Live {
                progress: Mutex::new(BTreeMap::new()),
                bell: tokio::sync::watch::Sender::new(0),
                stopping: CancellationToken::new(),
            }),
            service,
            tasks,
            events,
        }
    }

    /// Stores a job as PENDING together with its task. `id` may be empty; `parent` is the name it is under, or empty. The same
    /// `request_id` again answers with the first job.
    ///
    /// # Errors
    /// A wrong id; a name that is taken.
    pub async fn create(&self, mut job: J, parent: &str, id: &str, request_id: &str) -> Result<J, Fault> {
        let kind = J::COLLECTION.rsplit('/').nth(1).unwrap_or_default();
        let id = match id {
            // Derived from the request id, so that a retry without an id finds the first job.
            "" if !request_id.is_empty() => derived_id(request_id),
            "" => uuid::Uuid::now_v7().simple().to_string(),
            id => id.to_owned(),
        };
        names::check_id(&id).map_err(|error| Fault::invalid("id", error.to_string()))?;
        let name = if parent.is_empty() { format!("{kind}/{id}") } else { format!("{parent}/{kind}/{id}") };
        job.set_meta(tidemill_proto::Meta { name: name.clone(), ..Default::default() });
        job.set_job_state(State::Pending);
        job.set_error(None);
        job.set_progress(None);
        job.set_start_time(None);
        job.set_end_time(None);
        let task = event(self.tasks, &name, &JobRequested { job: name.clone() });
        let request_id = (!request_id.is_empty()).then_some(request_id);
        let (job, _created) = self.collection.create(&job, request_id, vec![task]).await.map_err(fault_of_resources)?;
        Ok(job)
    }

    /// Reads a job, with its progress of this moment.
    ///
    /// # Errors
    /// No such job.
    pub async fn get(&self, name: &str) -> Result<J, Fault> {
        let mut job = self.collection.get(name).await.map_err(fault_of_resources)?;
        if !job.ended()
            && let Some(progress) = self.progress_of(name).await
        {
            job.set_progress(Some(progress));
        }
        Ok(job)
    }

    /// Lists jobs, newest first.
    ///
    /// # Errors
    /// A wrong page size or token.
    pub async fn list(&self, page: ListPage) -> Result<Page<J>, Fault> {
        let mut page = self.collection.list(page).await.map_err(fault_of_resources)?;
        for job in page.items.iter_mut().filter(|job| !job.ended()) {
            if let Some(progress) = self.progress_of(job.name()).await {
                job.set_progress(Some(progress));
            }
        }
        Ok(page)
    }

    /// Cancels a job; one that has ended stays as it is.
    ///
    /// # Errors
    /// No such job.
    pub async fn cancel(&self, name: &str) -> Result<J, Fault> {
        self.end(name, |job| job.set_job_state(State::Cancelled)).await
    }

    /// Ends a job once: sets its end time and writes the event that tells of it, in one transaction.
    async fn end(&self, name: &str, change: impl Fn(&mut J)) -> Result<J, Fault> {
        // The change may run again, after somebody else wrote first.
        let ends = AtomicBool::new(false);
        let ended =
            self.collection.modify(name, |job: &mut J| -> Result<Vec<OutboxEvent>, tidemill_resources::Error> {
                ends.store(!job.ended(), Ordering::Relaxed);
                if job.ended() {
                    return Ok(Vec::new());
                }
                change(job);
                job.set_end_time(Some(now()));
                let state = job.job_state();
                let digest = if state == State::Succeeded { job.result_digest().to_owned() } else { String::new() };
                let payload =
                    JobEnded { job: name.to_owned(), state: state.into(), digest, labels: job.labels().clone() };
                Ok(vec![event(self.events, name, &payload)])
            });
        let job = ended.await.map_err(fault_of_resources)?;
        if ends.load(Ordering::Relaxed) {
            Self::tell_end(&job);
        }
        Ok(job)
    }

    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.live.stopping
    }

    async fn progress_of(&self, name: &str) -> Option<Progress> {
        let local = self.live.progress.lock().expect("no holder of this lock panics").get(name).cloned();
        if local.is_some() {
            return local;
        }
        // Another replica runs it, or nobody does.
        let cached = self.cache.get(&format!("progress/{name}")).await.ok().flatten()?;
        Progress::decode(cached).ok()
    }
}

/// An id that is the same for the same request.
fn derived_id(request_id: &str) -> String {
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, request_id.as_bytes()).simple().to_string()
}

/// The present time.
pub(crate) fn now() -> prost_types::Timestamp {
    let now = jiff::Timestamp::now();
    prost_types::Timestamp { seconds: now.as_second(), nanos: now.subsec_nanosecond() }
}

#[cfg(test)]
mod tests;
