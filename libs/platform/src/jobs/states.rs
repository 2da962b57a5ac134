//! What metrics tell of jobs: how many are in each state, and how long those that ended took.

use std::time::Duration;

use tidemill_proto::Job;
use tidemill_proto::r#type::v1::State;
use tidemill_resources::ListPage;
use tokio_util::sync::CancellationToken;

use super::{Jobs, now};

/// How often jobs are counted.
const EVERY: Duration = Duration::from_secs(15);
/// Jobs counted, the newest: older ones have ended long ago, or stand still for everybody to see.
const COUNTED: i32 = 1000;

impl<J: Job> Jobs<J> {
    /// The kind as metrics call it: `trainingJobs`, `datasets/versions`.
    pub(super) fn told_kind() -> String {
        J::COLLECTION.replace("/-", "")
    }

    /// Counts jobs by state until stopped.
    pub(super) async fn tell_states(&self, stop: CancellationToken) {
        let counting = async {
            loop {
                self.count_states().await;
                tokio::time::sleep(EVERY).await;
            }
        };
        stop.run_until_cancelled(counting).await;
    }

    async fn count_states(&self) {
        let newest = ListPage { page_size: COUNTED, ..ListPage::default() };
        let page = match self.collection.list(newest).await {
            Ok(page) => page,
            Err(error) => return tracing::warn!(kind = Self::told_kind(), %error, "jobs cannot be counted"),
        };
        for state in [State::Pending, State::Running, State::Succeeded, State::Failed, State::Cancelled] {
            let count = page.items.iter().filter(|job| job.job_state() == state).count();
            metrics::gauge!("tidemill_job_state", "kind" => Self::told_kind(), "state" => name(state))
                .set(count as f64);
        }
    }

    /// Tells that a job has ended, once.
    pub(super) fn tell_end(job: &J) {
        // One that was cancelled before it began took no time.
        let Some(start) = job.start_time() else { return };
        let end = now();
        let seconds = (end.seconds - start.seconds) as f64 + f64::from(end.nanos - start.nanos) / 1e9;
        let state = name(job.job_state());
        metrics::histogram!("tidemill_job_duration_seconds", "kind" => Self::told_kind(), "state" => state)
            .record(seconds.max(0.0));
    }
}

fn name(state: State) -> &'static str {
    match state {
        State::Unspecified => "unspecified",
        State::Pending => "pending",
        State::Running => "running",
        State::Succeeded => "succeeded",
        State::Failed => "failed",
        State::Cancelled => "cancelled",
    }
}
