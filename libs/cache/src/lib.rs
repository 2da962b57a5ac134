//! A cache: never the only copy of anything, and always allowed to forget.

pub mod contract;
mod memory;
mod metered;
mod redis;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

/// What can go wrong, by meaning.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The cache cannot be reached; callers go on without it.
    #[error("the cache {url} is unavailable: {reason}")]
    Unavailable {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The port.
#[async_trait]
pub trait Cache: Send + Sync + 'static {
    /// Reads a value that has not expired.
    async fn get(&self, key: &str) -> Result<Option<Bytes>>;
    /// Writes a value that expires after `ttl`.
    async fn put(&self, key: &str, value: Bytes, ttl: Duration) -> Result<()>;
    /// Writes unless the key is there; says whether it wrote. Atomic.
    async fn put_if_absent(&self, key: &str, value: Bytes, ttl: Duration) -> Result<bool>;
    /// Forgets a key.
    async fn remove(&self, key: &str) -> Result<()>;
}

/// Opens the cache that a URL names: `memory:`, or `redis://host:6379/0?password_file=/path&prefix=tidemill:` (`rediss://` for TLS). A
/// Redis that is away is no error here: it is asked for when it is first needed.
pub async fn connect(url: &str) -> Result<Arc<dyn Cache>> {
    match url.split_once(':') {
        Some(("memory", _)) => Ok(Arc::new(memory::MemoryCache::new())),
        Some(("redis" | "rediss", _)) => Ok(Arc::new(metered::Metered(Arc::new(redis::RedisCache::open(url)?)))),
        _ => {
            let reason = format!("unknown scheme; use memory: or {}", redis::EXAMPLE);
            Err(Error::Unavailable { url: tidemill_address::masked(url), reason })
        }
    }
}
