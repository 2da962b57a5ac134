//! The embedded adapter: a map in this process, bounded, with expiry.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::{Cache, Result};

/// How many values it keeps; beyond that, those that would expire first go.
const MOST: usize = 100_000;

pub(crate) struct MemoryCache {
    most: usize,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    values: HashMap<String, (Bytes, Instant)>,
    /// The same, by time of expiry.
    expiries: BTreeSet<(Instant, String)>,
}

impl MemoryCache {
    pub(crate) fn new() -> MemoryCache {
        MemoryCache::bounded(MOST)
    }

    fn bounded(most: usize) -> MemoryCache {
        MemoryCache { most, entries: Mutex::default() }
    }

    /// The entries that have not expired.
    fn entries(&self) -> MutexGuard<'_, Entries> {
        // No operation on the map can panic halfway.
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        while entries.expiries.first().is_some_and(|(expiry, _)| *expiry <= now) {
            entries.remove_first();
        }
        entries
    }
}

impl Entries {
    fn put(&mut self, key: &str, value: Bytes, ttl: Duration, most: usize) {
        self.remove(key);
        let now = Instant::now();
        // A ttl beyond what the clock can count is as good as thirty years.
        let expiry = now.checked_add(ttl).unwrap_or_else(|| now + Duration::from_secs(86_400 * 365 * 30));
        if expiry > now {
            self.expiries.insert((expiry, key.to_owned()));
            self.values.insert(key.to_owned(), (value, expiry));
        }
        while self.values.len() > most {
            self.remove_first();
        }
    }

    fn remove(&mut self, key: &str) {
        if let Some((_, expiry)) = self.values.remove(key) {
            self.expiries.remove(&(expiry, key.to_owned()));
        }
    }

    fn remove_first(&mut self) {
        if let Some((_, key)) = self.expiries.pop_first() {
            self.values.remove(&key);
        }
    }
}

#[async_trait]
impl Cache for MemoryCache {
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        Ok(self.entries().values.get(key).map(|(value, _)| value.clone()))
    }

    async fn put(&self, key: &str, value: Bytes, ttl: Duration) -> Result<()> {
        self.entries().put(key, value, ttl, self.most);
        Ok(())
    }

    async fn put_if_absent(&self, key: &str, value: Bytes, ttl: Duration) -> Result<bool> {
        let mut entries = self.entries();
        let absent = !entries.values.contains_key(key);
        if absent {
            entries.put(key, value, ttl, self.most);
        }
        Ok(absent)
    }

    async fn remove(&self, key: &str) -> Result<()> {
        self.entries().remove(key);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::contract;

    macro_rules! promises {
        ($($promise:ident)*) => {
            mod promises {
                use super::*;
                $(#[tokio::test]
                async fn $promise() {
                    contract::$promise(&crate::connect("memory:").await.unwrap()).await;
                })*
            }
        };
    }

    promises! {
        what_was_put_is_there
        a_later_put_replaces
        what_was_removed_is_gone
        a_value_is_gone_after_its_ttl
        a_later_put_counts_its_ttl_anew
        of_many_who_put_if_absent_exactly_one_wins
        an_expired_value_is_absent
    }

    #[tokio::test]
    async fn beyond_its_bound_it_forgets_what_would_expire_first() {
        let cache = MemoryCache::bounded(3);
        for (key, ttl) in [("b", 20), ("a", 10), ("d", 40), ("c", 30)] {
            cache.put(key, Bytes::from(key), Duration::from_secs(ttl)).await.unwrap();
        }
        assert_eq!(cache.get("a").await.unwrap(), None);
        for key in ["b", "c", "d"] {
            assert_eq!(cache.get(key).await.unwrap(), Some(Bytes::from(key)));
        }
    }

    #[tokio::test]
    async fn what_has_expired_takes_no_memory() {
        let cache = MemoryCache::new();
        cache.put("a", Bytes::from("a"), Duration::from_millis(20)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(40)).await;
        cache.get("b").await.unwrap();
        let entries = cache.entries.lock().unwrap();
        assert!(entries.values.is_empty() && entries.expiries.is_empty());
    }

    #[tokio::test]
    async fn an_unknown_scheme_is_named_with_the_remedy() {
        let error = crate::connect("http://localhost").await.map(|_: Arc<dyn Cache>| ()).unwrap_err().to_string();
        assert!(error.contains("http://localhost") && error.contains("memory:"), "{error}");
    }
}
