//! Measures a log: how long its appends take.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;

use crate::{Event, Log, Result, Subscription};

pub(crate) struct Metered(pub(crate) Arc<dyn Log>);

#[async_trait]
impl Log for Metered {
    async fn append(&self, events: Vec<Event>) -> Result<()> {
        let start = Instant::now();
        let appended = self.0.append(events).await;
        metrics::histogram!("tidemill_eventlog_append_duration_seconds").record(start.elapsed());
        appended
    }

    async fn subscribe(&self, topics: &[&str], group: &str) -> Result<Box<dyn Subscription>> {
        self.0.subscribe(topics, group).await
    }
}
