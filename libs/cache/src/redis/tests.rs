//! Redis keeps the promises, with and without TLS. Runs where TIDEMILL_TEST_REDIS is set.

use std::sync::Arc;
use std::time::Instant;

use super::*;
use crate::contract;

macro_rules! promises {
    ($($promise:ident)*) => {
        mod promises_of_plain {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                if let Some(cache) = super::server("TIDEMILL_TEST_REDIS", stringify!($promise)).await {
                    super::contract::$promise(&cache).await;
                }
            })*
        }
        mod promises_of_tls {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                if let Some(cache) = super::server("TIDEMILL_TEST_REDIS_TLS", stringify!($promise)).await {
                    super::contract::$promise(&cache).await;
                }
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

/// The server that a variable names, under a prefix of the test's own.
async fn server(variable: &str, test: &str) -> Option<Arc<dyn Cache>> {
    let Ok(url) = std::env::var(variable) else {
        println!("skipped: redis contract: {variable} is not set; run make deps-up");
        return None;
    };
    let mark = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let separator = if url.contains('?') { '&' } else { '?' };
    Some(crate::connect(&format!("{url}{separator}prefix={test}-{mark}:")).await.unwrap())
}

#[tokio::test]
async fn prefixes_keep_apart() {
    let Some(one) = server("TIDEMILL_TEST_REDIS", "one").await else { return };
    let Some(two) = server("TIDEMILL_TEST_REDIS", "two").await else { return };
    one.put("key", Bytes::from("1"), Duration::from_secs(10)).await.unwrap();
    assert_eq!(two.get("key").await.unwrap(), None);
    assert!(two.put_if_absent("key", Bytes::from("2"), Duration::MAX).await.unwrap());
    assert_eq!(one.get("key").await.unwrap(), Some(Bytes::from("1")));
}

#[tokio::test]
async fn a_server_that_is_away_keeps_nobody_from_starting() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // It accepts, as the kernel does for a process that is stopped, and never answers.
    let cache = crate::connect(&format!("redis://me:secret@{address}")).await.unwrap();
    let begin = Instant::now();
    let error = cache.get("key").await.unwrap_err().to_string();
    assert!(begin.elapsed() < PATIENCE * 2, "{:?}", begin.elapsed());
    assert!(error.contains(&format!("redis://me:***@{address}")) && !error.contains("secret"), "{error}");
    drop(listener);
    cache.get("key").await.unwrap_err();
}

#[tokio::test]
async fn a_strange_url_is_refused_with_the_remedy() {
    for (url, hint) in [
        ("redis://host?prefx=a", "password_file, prefix"),
        ("redis://host/zero", "number of a database"),
        ("redis://", "redis://host:6379"),
        ("redis://host?password_file=/does/not/exist", "/does/not/exist"),
        ("rediss://host?ssl_key_file=/dev/null", "belong together"),
    ] {
        let text = crate::connect(url).await.map(|_| ()).unwrap_err().to_string();
        assert!(text.contains(hint), "{text}");
    }
}
