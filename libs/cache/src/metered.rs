//! Counts what fails because the cache is away.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::{Cache, Result};

pub(crate) struct Metered(pub(crate) Arc<dyn Cache>);

fn told<T>(outcome: Result<T>) -> Result<T> {
    if outcome.is_err() {
        metrics::counter!("tidemill_dependency_failures_total", "dependency" => "cache").increment(1);
    }
    outcome
}

#[async_trait]
impl Cache for Metered {
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        told(self.0.get(key).await)
    }

    async fn put(&self, key: &str, value: Bytes, ttl: Duration) -> Result<()> {
        told(self.0.put(key, value, ttl).await)
    }

    async fn put_if_absent(&self, key: &str, value: Bytes, ttl: Duration) -> Result<bool> {
        told(self.0.put_if_absent(key, value, ttl).await)
    }

    async fn remove(&self, key: &str) -> Result<()> {
        told(self.0.remove(key).await)
    }
}
