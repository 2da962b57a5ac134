//! The promises of a cache, one function each; every adapter is held to them.
//!
//! Each takes an empty cache. Those that wait for an expiry advance tokio's clock where it is paused, and wait where it is not.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::Cache;

const LONG: Duration = Duration::from_secs(600);
const SHORT: Duration = Duration::from_millis(200);

/// What was put is read back; what was not is absent.
pub async fn what_was_put_is_there(cache: &Arc<dyn Cache>) {
    cache.put("key", Bytes::from_static(b"\0value"), LONG).await.expect("put");
    assert_eq!(get(cache, "key").await, Some(Bytes::from_static(b"\0value")));
    assert_eq!(get(cache, "other").await, None);
}

/// A put replaces the value that is there.
pub async fn a_later_put_replaces(cache: &Arc<dyn Cache>) {
    cache.put("key", Bytes::from("1"), LONG).await.expect("put");
    cache.put("key", Bytes::from("2"), LONG).await.expect("put");
    assert_eq!(get(cache, "key").await, Some(Bytes::from("2")));
}

/// What was removed is gone; removing what is not there changes nothing.
pub async fn what_was_removed_is_gone(cache: &Arc<dyn Cache>) {
    cache.put("key", Bytes::from("1"), LONG).await.expect("put");
    cache.remove("key").await.expect("remove");
    cache.remove("key").await.expect("remove again");
    assert_eq!(get(cache, "key").await, None);
}

/// A value is there before its time is up, and gone after.
pub async fn a_value_is_gone_after_its_ttl(cache: &Arc<dyn Cache>) {
    cache.put("long", Bytes::from("1"), LONG).await.expect("put");
    cache.put("short", Bytes::from("1"), SHORT).await.expect("put");
    assert!(get(cache, "short").await.is_some());
    tokio::time::sleep(SHORT * 2).await;
    assert_eq!(get(cache, "short").await, None);
    assert!(get(cache, "long").await.is_some());
}

/// A replaced value lives as long as the last put said.
pub async fn a_later_put_counts_its_ttl_anew(cache: &Arc<dyn Cache>) {
    cache.put("key", Bytes::from("1"), SHORT).await.expect("put");
    cache.put("key", Bytes::from("2"), LONG).await.expect("put");
    tokio::time::sleep(SHORT * 2).await;
    assert_eq!(get(cache, "key").await, Some(Bytes::from("2")));
}

/// Many put the same key at once: one is told that it wrote, and its value is there.
pub async fn of_many_who_put_if_absent_exactly_one_wins(cache: &Arc<dyn Cache>) {
    let mut racers = tokio::task::JoinSet::new();
    for racer in 0..32 {
        let cache = cache.clone();
        racers.spawn(async move {
            let value = Bytes::from(racer.to_string());
            cache.put_if_absent("key", value.clone(), LONG).await.expect("put_if_absent").then_some(value)
        });
    }
    let winners: Vec<Bytes> = racers.join_all().await.into_iter().flatten().collect();
    assert_eq!(winners.len(), 1, "{winners:?}");
    assert_eq!(get(cache, "key").await, winners.first().cloned());
}

/// An expired or removed value does not stand in the way of put_if_absent.
pub async fn an_expired_value_is_absent(cache: &Arc<dyn Cache>) {
    assert!(cache.put_if_absent("key", Bytes::from("1"), SHORT).await.expect("first"));
    assert!(!cache.put_if_absent("key", Bytes::from("2"), SHORT).await.expect("second"));
    tokio::time::sleep(SHORT * 2).await;
    assert!(cache.put_if_absent("key", Bytes::from("3"), LONG).await.expect("after expiry"));
    assert_eq!(get(cache, "key").await, Some(Bytes::from("3")));
    cache.remove("key").await.expect("remove");
    assert!(cache.put_if_absent("key", Bytes::from("4"), LONG).await.expect("after removal"));
}

async fn get(cache: &Arc<dyn Cache>, key: &str) -> Option<Bytes> {
    cache.get(key).await.expect("get")
}
