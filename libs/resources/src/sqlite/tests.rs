//! A file and memory keep the promises; what only a file can show comes after.

use std::sync::Arc;

use super::*;
use crate::{OutboxEvent, contract};

macro_rules! promises {
    ($($promise:ident)*) => {
        mod promises_of_file {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let folder = tempfile::tempdir().unwrap();
                super::contract::$promise(&super::open(&folder).await).await;
            })*
        }
        mod promises_of_memory {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                super::contract::$promise(&crate::connect("sqlite::memory:").await.unwrap()).await;
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
    of_several_one_leads
}

async fn open(folder: &tempfile::TempDir) -> Arc<dyn Store> {
    crate::connect(&url(folder)).await.unwrap()
}

fn url(folder: &tempfile::TempDir) -> String {
    format!("sqlite://{}/deep/resources.db", folder.path().display())
}

fn batch(name: &str, body: impl Into<Bytes>) -> Batch {
    let event = OutboxEvent {
        id: name.to_owned(),
        topic: "t".to_owned(),
        key: "k".to_owned(),
        event_type: "e".to_owned(),
        payload: Bytes::from("p"),
        headers: Vec::new(),
    };
    Batch {
        writes: vec![Write::Create { name: name.to_owned(), body: body.into(), request_id: None }],
        events: vec![event],
    }
}

#[tokio::test]
async fn all_is_there_after_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let first = store.commit(batch("models/a", "1")).await.unwrap();
    let sequence = store.pending(1).await.unwrap()[0].sequence;
    store.published(sequence).await.unwrap();
    store.commit(batch("models/b", "2")).await.unwrap();
    drop(store);
    let store = open(&folder).await;
    assert_eq!(store.get("models/a").await.unwrap(), first[0]);
    let pending = store.pending(10).await.unwrap();
    assert_eq!(pending.len(), 1);
    assert!(pending[0].sequence > sequence);
}

#[tokio::test]
async fn times_go_on_even_if_the_clock_went_back() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    store.commit(batch("models/a", "1")).await.unwrap();
    drop(store);
    let future = jiff::Timestamp::now().as_microsecond() + 3_600_000_000;
    let path = folder.path().join("deep/resources.db");
    Connection::open(path).unwrap().execute("UPDATE records SET update_micros = ?", [future]).unwrap();
    let store = open(&folder).await;
    assert_eq!(store.commit(batch("models/b", "1")).await.unwrap()[0].create_micros, future + 1);
}

#[tokio::test]
async fn a_locked_file_is_named_and_reads_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    store.commit(batch("models/a", "1")).await.unwrap();
    let other = Connection::open(folder.path().join("deep/resources.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let text = store.commit(batch("models/b", "1")).await.unwrap_err().to_string();
    assert!(text.contains(&url(&folder)) && text.contains("another process has locked it"), "{text}");
    store.get("models/a").await.unwrap();
    other.execute_batch("ROLLBACK").unwrap();
    store.commit(batch("models/b", "1")).await.unwrap();
}

/// SQLite's own bound on the number of pages stands in for the end of a disk: the error code is the same.
#[tokio::test]
async fn on_a_full_disk_a_batch_fails_whole_and_the_store_lives_on() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&url(&folder)).await.unwrap();
    let most = |pages: i64| {
        let set =
            |connection: &Connection| connection.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()));
        set(&lock(&store.writer).connection).unwrap();
    };
    most(20);
    let error = store.commit(batch("models/a", vec![0; 1 << 20])).await.unwrap_err();
    assert!(matches!(&error, Error::DiskFull(place) if *place == url(&folder)), "{error:?}");
    assert!(matches!(store.get("models/a").await, Err(Error::NotFound(_))));
    assert!(store.pending(1).await.unwrap().is_empty());
    most(10_000);
    store.commit(batch("models/a", vec![0; 1 << 20])).await.unwrap();
}

#[tokio::test]
async fn a_commit_goes_through_though_nobody_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder).await;
    let mut wakes = store.committed();
    let mut commit = store.commit(batch("models/a", "1"));
    // One poll hands the batch over; then the caller goes away.
    std::future::poll_fn(|context| {
        let _ = commit.as_mut().poll(context);
        std::task::Poll::Ready(())
    })
    .await;
    drop(commit);
    tokio::time::timeout(Duration::from_secs(10), wakes.changed()).await.unwrap().unwrap();
    store.get("models/a").await.unwrap();
}

#[tokio::test]
async fn a_file_that_is_no_store_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "this is not a database, and it is long enough to be looked at as if it were one").unwrap();
    let newer = folder.path().join("newer");
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    for (url, hint) in [
        ("mysql://host".to_owned(), "sqlite:///path/to/file.db or postgres://"),
        ("sqlite:relative".to_owned(), "absolute"),
        (format!("sqlite://{}", file.display()), "not a database"),
        (format!("sqlite://{}", newer.display()), "newer version"),
        (format!("sqlite://{}/file/x.db", folder.path().display()), "file"),
    ] {
        let text = crate::connect(&url).await.map(|_| ()).unwrap_err().to_string();
        assert!(text.contains(&url) && text.contains(hint), "{text}");
    }
}
