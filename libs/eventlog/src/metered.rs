//! Measures a log: how long its appends take, and what fails because it is away or full.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use crate::{Error, Event, Log, Result, Subscription};

pub(crate) struct Metered(pub(crate) Arc<dyn Log>);

fn told<T>(outcome: Result<T>) -> Result<T> {
    if let Err(Error::Unavailable { .. } | Error::DiskFull(_)) = outcome {
        metrics::counter!("tidemill_dependency_failures_total", "dependency" => "eventlog").increment(1);
    }
    outcome
}

#[async_trait]
impl Log for Metered {
    async fn append(&self, events: Vec<Event>) -> Result<()> {
        let start = Instant::now();
        let appended = self.0.append(events).await;
        metrics::histogram!("tidemill_eventlog_append_duration_seconds").record(start.elapsed());
        told(appended)
    }

    async fn subscribe(&self, topics: &[&str], group: &str) -> Result<Box<dyn Subscription>> {
        told(self.0.subscribe(topics, group).await)
    }
}
