//! Counts what fails because the store is away or full.

use std::sync::Arc;

use async_trait::async_trait;

use crate::{Batch, Error, Leadership, List, Pending, Record, Result, Store};

pub(crate) struct Metered(pub(crate) Arc<dyn Store>);

fn told<T>(outcome: Result<T>) -> Result<T> {
    if let Err(Error::Unavailable { .. } | Error::DiskFull(_)) = outcome {
        metrics::counter!("tidemill_dependency_failures_total", "dependency" => "resources").increment(1);
    }
    outcome
}

#[async_trait]
impl Store for Metered {
    async fn commit(&self, batch: Batch) -> Result<Vec<Record>> {
        told(self.0.commit(batch).await)
    }

    async fn get(&self, name: &str) -> Result<Record> {
        told(self.0.get(name).await)
    }

    async fn list(&self, list: List) -> Result<Vec<Record>> {
        told(self.0.list(list).await)
    }

    async fn pending(&self, limit: usize) -> Result<Vec<Pending>> {
        told(self.0.pending(limit).await)
    }

    async fn published(&self, sequence: i64) -> Result<()> {
        told(self.0.published(sequence).await)
    }

    async fn lead(&self) -> Result<Option<Box<dyn Leadership>>> {
        told(self.0.lead().await)
    }

    fn committed(&self) -> tokio::sync::watch::Receiver<u64> {
        self.0.committed()
    }
}
