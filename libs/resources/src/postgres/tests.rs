//! PostgreSQL keeps the promises, in a schema of each test's own. Runs where TIDEMILL_TEST_POSTGRES is set.

use std::time::Instant;

use bytes::Bytes;

use super::*;
use crate::contract::{self, replicas};
use crate::{OutboxEvent, Write};

macro_rules! promises {
    ($($promise:ident)*) => {
        mod promises {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let Some(url) = url("TIDEMILL_TEST_POSTGRES") else { return };
                contract::$promise(&crate::connect(&url).await.unwrap()).await;
            })*
        }
    };
}

macro_rules! promises_to_replicas {
    ($($promise:ident)*) => {
        mod promises_to_replicas {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let Some(url) = url("TIDEMILL_TEST_POSTGRES") else { return };
                // Both start at once, on a database without tables.
                let (one, two) = tokio::join!(crate::connect(&url), crate::connect(&url));
                replicas::$promise(&one.unwrap(), &two.unwrap()).await;
            })*
        }
    };
}

promises! {
    what_was_created_is_read_back
    an_update_changes_body_etag_and_time
    a_stale_etag_conflicts
    a_deleted_name_may_be_used_again
    a_write_commits_with_its_events
    a_failed_batch_leaves_nothing
    a_retried_create_writes_once
    of_many_creates_one_wins
    lists_are_newest_first
    pages_hold_while_others_write
    the_outbox_keeps_the_order_of_commits
    what_was_published_is_forgotten
    a_concurrent_change_is_never_lost
}

promises_to_replicas! {
    of_several_one_leads
    both_see_one_store
    of_two_with_one_etag_one_wins
    of_two_who_create_one_wins
    the_outbox_has_no_gaps_that_fill_later
    a_commit_of_one_wakes_the_other
}

/// The server that a variable names, with a schema of the test's own.
fn url(variable: &str) -> Option<String> {
    let Ok(url) = std::env::var(variable) else {
        println!("skipped: postgres contract: {variable} is not set; run make deps-up");
        return None;
    };
    let separator = if url.contains('?') { '&' } else { '?' };
    Some(format!("{url}{separator}schema=test_{}", uuid::Uuid::new_v4().simple()))
}

fn batch(name: &str) -> Batch {
    let event = OutboxEvent {
        id: name.to_owned(),
        topic: "t".to_owned(),
        key: "k".to_owned(),
        event_type: "e".to_owned(),
        payload: Bytes::from("p"),
        headers: Vec::new(),
    };
    let write = Write::Create { name: name.to_owned(), body: Bytes::from("1"), request_id: Some("r".to_owned()) };
    Batch { writes: vec![write], events: vec![event] }
}

/// Closes the connection of the leader, as a failover does.
async fn close_leader(store: &PostgresStore) -> i64 {
    let close = "SELECT count(pg_terminate_backend(pid)) FROM pg_locks
                 WHERE locktype = 'advisory' AND classid = 0 AND objid = 'leader'::regclass::oid";
    store.pool.get().await.unwrap().query_one(close, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn all_is_there_after_it_is_opened_again() {
    let Some(url) = url("TIDEMILL_TEST_POSTGRES") else { return };
    let first = crate::connect(&url).await.unwrap().commit(batch("models/a")).await.unwrap();
    let store = crate::connect(&url).await.unwrap();
    assert_eq!(store.get("models/a").await.unwrap(), first[0]);
    assert_eq!(store.pending(10).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn times_go_on_even_if_the_clock_went_back() {
    let Some(url) = url("TIDEMILL_TEST_POSTGRES") else { return };
    let store = PostgresStore::open(&url).await.unwrap();
    let future = jiff::Timestamp::now().as_microsecond() + 3_600_000_000;
    let client = store.pool.get().await.unwrap();
    client.execute("SELECT setval('clock', $1)", &[&future]).await.unwrap();
    drop(client);
    assert_eq!(store.commit(batch("models/a")).await.unwrap()[0].create_micros, future + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn when_the_leader_dies_it_learns_so_and_another_leads() {
    let Some(url) = url("TIDEMILL_TEST_POSTGRES") else { return };
    let one: Arc<dyn Store> = Arc::new(PostgresStore::open(&url).await.unwrap());
    let other = PostgresStore::open(&url).await.unwrap();
    let mut leadership = one.lead().await.unwrap().unwrap();
    assert!(other.lead().await.unwrap().is_none());
    let begin = Instant::now();
    assert_eq!(close_leader(&other).await, 1);
    leadership.lost().await;
    assert!(begin.elapsed() < Duration::from_secs(2), "it learned after {:?}", begin.elapsed());
    let other: Arc<dyn Store> = Arc::new(other);
    let heir = replicas::eventually_leads(&other).await;
    assert!(begin.elapsed() >= Duration::from_secs(3), "the heir did not wait until the other must have noticed");
    drop(heir);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_tls_the_certificate_is_verified_as_far_as_the_mode_says() {
    let Some(url) = url("TIDEMILL_TEST_POSTGRES_TLS") else { return };
    let authority = url.split("sslrootcert=").nth(1).unwrap().split('&').next().unwrap().to_owned();
    let mode = |mode: &str| url.replace("sslmode=verify-full", &format!("sslmode={mode}"));
    let bare = |url: String| url.replace(&format!("&sslrootcert={authority}"), "");
    for good in [mode("verify-full"), mode("verify-ca"), mode("require"), bare(mode("require")), bare(mode("prefer"))] {
        let store = PostgresStore::open(&good).await.unwrap_or_else(|error| panic!("{good}: {error}"));
        let client = store.pool.get().await.unwrap();
        let encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        assert!(client.query_one(encrypted, &[]).await.unwrap().get::<_, bool>(0), "{good}");
    }
    // The machine's own authorities did not sign it; the role is refused without TLS.
    for (bad, hint) in [(bare(mode("verify-full")), "UnknownIssuer"), (mode("disable"), "no encryption")] {
        let server = Server::parse(&bad).unwrap();
        let error = server.connect().await.map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(hint), "{bad}: {error}");
    }
}

#[tokio::test]
async fn a_strange_url_is_refused_with_the_remedy() {
    for (url, hint) in [
        ("postgres://me@host/db?sslmod=full", "password_file, sslmode"),
        ("postgres://me@host/db?sslmode=full", "verify-full"),
        ("postgres://me@host/db?schema=A;b", "small letters"),
        ("postgres://host/db", "names no user"),
        ("postgres://me:secret@host", "names no database"),
        ("postgres://me:secret@host/db?password_file=/does/not/exist", "/does/not/exist"),
        ("postgres://me:secret@host/db?sslmode=verify-ca&sslrootcert=/dev/null", "no certificate"),
    ] {
        let text = crate::connect(url).await.map(|_| ()).unwrap_err().to_string();
        assert!(text.contains(hint) && !text.contains("secret"), "{text}");
    }
}
