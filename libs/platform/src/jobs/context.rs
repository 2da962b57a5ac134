//! What a runner is given: a way to tell how far it is, and to learn that it should leave.

use prost::Message;
use std::time::Duration;

use tidemill_chassis::Fault;
use tidemill_proto::Job;
use tidemill_proto::r#type::v1::Progress;
use tidemill_resources::OutboxEvent;
use tokio_util::sync::CancellationToken;

use super::Jobs;
use crate::fault_of_resources;

/// How long another replica may show progress after the last report.
const PROGRESS_TTL: Duration = Duration::from_secs(60);

/// The surroundings of one running job. Cheap to clone.
pub struct Context<J> {
    pub(super) jobs: Jobs<J>,
    pub(super) name: String,
    pub(super) cancelled: CancellationToken,
    pub(super) stopping: CancellationToken,
}

impl<J> Clone for Context<J> {
    fn clone(&self) -> Self {
        Self {
            jobs: self.jobs.clone(),
            name: self.name.clone(),
            cancelled: self.cancelled.clone(),
            stopping: self.stopping.clone(),
        }
    }
}

impl<J: Job> Context<J> {
    /// Cancelled once somebody cancelled the job, or the process stops: leave soon, write nothing more.
    pub fn cancelled(&self) -> &CancellationToken {
        &self.cancelled
    }

    /// Cancelled once the process stops (and not the job).
    pub fn stopping(&self) -> &CancellationToken {
        &self.stopping
    }

    /// An error if the runner should leave: for use between pieces of work.
    ///
    /// # Errors
    /// It should.
    pub fn check(&self) -> Result<(), Fault> {
        if self.cancelled.is_cancelled() { Err(Fault::unavailable("the work was stopped")) } else { Ok(()) }
    }

    /// Says how far the job is. Cheap, and callable from any thread.
    pub fn progress(&self, progress: Progress) {
        let live = &self.jobs.live;
        live.progress.lock().expect("no holder of this lock panics").insert(self.name.clone(), progress);
        live.bell.send_modify(|count| *count += 1);
    }

    /// Changes the stored job while it runs.
    ///
    /// # Errors
    /// The store is away.
    pub async fn update(&self, change: impl Fn(&mut J)) -> Result<J, Fault> {
        let changed = self.jobs.collection.modify(&self.name, |job: &mut J| {
            if !job.ended() {
                change(job);
            }
            Ok::<Vec<OutboxEvent>, tidemill_resources::Error>(Vec::new())
        });
        changed.await.map_err(fault_of_resources)
    }

    /// Leaves progress where every replica finds it, also while nobody works on the job.
    pub(super) async fn share(&self, progress: &Progress) {
        let (key, value) = (format!("progress/{}", self.name), progress.encode_to_vec());
        // The cache may forget; progress is only for people.
        let _forgotten = self.jobs.cache.put(&key, value.into(), PROGRESS_TTL).await;
    }

    /// Shares progress with other replicas while the job runs, and notices a cancellation, wherever it came from.
    pub(super) async fn attend(&self) {
        let mut committed = self.jobs.collection.store().committed();
        let mut bell = self.jobs.live.bell.subscribe();
        loop {
            match self.jobs.collection.get(&self.name).await {
                Ok(job) if job.ended() => {
                    self.cancelled.cancel();
                    return std::future::pending().await;
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(job = self.name, %error, "the job cannot be read now"),
            }
            let live = self.jobs.live.progress.lock().expect("no holder of this lock panics").get(&self.name).cloned();
            if let Some(progress) = live {
                self.share(&progress).await;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            tokio::select! {
                _ = committed.changed() => {}
                _ = bell.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(800)) => {}
            }
        }
    }
}
