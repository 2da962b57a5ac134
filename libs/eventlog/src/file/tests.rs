//! The promises, and what only a file held by one process can show.

use rusqlite::Connection;

use super::*;
use crate::contract;

macro_rules! promises {
    ($($promise:ident)*) => {
        mod promises {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let folder = tempfile::tempdir().unwrap();
                contract::$promise(&open(&folder).await).await;
            })*
        }
    };
}

promises! {
    an_event_arrives_as_it_was_appended
    events_of_one_key_keep_their_order
    a_partition_hands_out_one_event_at_a_time
    an_uncommitted_event_comes_again
    a_committed_event_does_not_come_again
    groups_do_not_see_each_other
    a_new_group_starts_at_the_beginning
    the_same_id_again_changes_nothing
    a_member_receives_its_topics
    who_waits_is_woken
    a_next_that_is_given_up_loses_nothing
    members_share_the_events
    a_dead_members_work_goes_on_with_another
    a_released_event_comes_again_after_its_delay
    no_partition_starves
}

async fn open(folder: &tempfile::TempDir) -> Arc<dyn Log> {
    crate::connect(&url(folder)).await.unwrap()
}

fn url(folder: &tempfile::TempDir) -> String {
    format!("file://{}/deep/events.db", folder.path().display())
}

fn event(id: &str, key: &str) -> Event {
    Event {
        id: id.to_owned(),
        topic: "t".to_owned(),
        key: key.to_owned(),
        event_type: "e".to_owned(),
        time_micros: 0,
        headers: Vec::new(),
        payload: bytes::Bytes::new(),
    }
}

async fn next(member: &mut Box<dyn Subscription>) -> Delivery {
    tokio::time::timeout(Duration::from_secs(30), member.next()).await.unwrap().unwrap()
}

#[tokio::test]
async fn all_is_there_after_it_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder).await;
    log.append(vec![event("1", "k"), event("2", "k"), event("3", "k")]).await.unwrap();
    let mut member = log.subscribe(&["t"], "g").await.unwrap();
    let first = next(&mut member).await;
    member.commit(&first).await.unwrap();
    assert_eq!(next(&mut member).await.event.id, "2");
    drop((log, member));
    let log = open(&folder).await;
    log.append(vec![event("1", "k"), event("4", "k")]).await.unwrap();
    let mut member = log.subscribe(&["t"], "g").await.unwrap();
    for id in ["2", "3", "4"] {
        let delivery = next(&mut member).await;
        assert_eq!((&*delivery.event.id, delivery.attempt), (id, 1));
        member.commit(&delivery).await.unwrap();
    }
}

#[tokio::test]
async fn a_second_one_on_the_same_file_is_told_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder).await;
    let error = crate::connect(&url(&folder)).await.map(drop).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::InUse { pid, .. } if pid == std::process::id().to_string()));
    assert!(text.contains(&url(&folder)) && text.contains(&format!("pid {}", std::process::id())), "{text}");
    let member = log.subscribe(&["t"], "g").await.unwrap();
    drop(log);
    assert!(crate::connect(&url(&folder)).await.is_err(), "a subscription still works on the file");
    drop(member);
    open(&folder).await;
}

#[tokio::test]
async fn what_a_member_does_not_hold_it_cannot_commit() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder).await;
    log.append(vec![event("1", "k")]).await.unwrap();
    let mut one = log.subscribe(&["t"], "g").await.unwrap();
    let mut two = log.subscribe(&["t"], "g").await.unwrap();
    let delivery = next(&mut one).await;
    assert!(matches!(two.commit(&delivery).await, Err(Error::NotHeld { offset: 0, .. })));
    assert!(matches!(two.release(&delivery, Duration::ZERO).await, Err(Error::NotHeld { .. })));
    one.release(&delivery, Duration::ZERO).await.unwrap();
    let text = one.commit(&delivery).await.unwrap_err().to_string();
    assert!(text.contains("offset 0 of t"), "{text}");
    let again = next(&mut two).await;
    two.commit(&again).await.unwrap();
    one.commit(&delivery).await.unwrap();
}

#[tokio::test]
async fn a_commit_that_nobody_waits_for_leaves_no_partition_stuck() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder).await;
    log.append(vec![event("1", "k"), event("2", "k")]).await.unwrap();
    let mut dying = log.subscribe(&["t"], "g").await.unwrap();
    let delivery = next(&mut dying).await;
    let mut commit = dying.commit(&delivery);
    // One poll sends the commit on its way; then the member dies.
    std::future::poll_fn(|context| {
        let _ = commit.as_mut().poll(context);
        std::task::Poll::Ready(())
    })
    .await;
    drop(commit);
    drop(dying);
    let mut heir = log.subscribe(&["t"], "g").await.unwrap();
    loop {
        let delivery = next(&mut heir).await;
        heir.commit(&delivery).await.unwrap();
        if delivery.event.id == "2" {
            break;
        }
    }
}

/// SQLite's own bound on the number of pages stands in for the end of a disk: the error code is the same.
#[tokio::test]
async fn on_a_full_disk_an_append_fails_whole_and_the_log_lives_on() {
    let folder = tempfile::tempdir().unwrap();
    let log = FileLog::open(&url(&folder)).await.unwrap();
    let most = |pages: i64| lock(&log.inner.table).bound(pages).unwrap();
    let big = Event { payload: vec![0; 1 << 20].into(), ..event("big", "k") };
    most(20);
    let error = log.append(vec![event("small", "k"), big.clone()]).await.unwrap_err();
    assert!(matches!(&error, Error::DiskFull(place) if *place == url(&folder)), "{error:?}");
    most(10_000);
    log.append(vec![big]).await.unwrap();
    let mut member = log.subscribe(&["t"], "g").await.unwrap();
    assert_eq!(next(&mut member).await.event.id, "big");
}

/// Where a key's events lie is for ever: another hash would break the order of keys in files that exist.
#[tokio::test]
async fn a_key_keeps_its_partition_over_releases() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(&folder).await;
    let keys = ["", "a", "trainingJobs/1", "models/sotu/versions/12"];
    log.append(keys.iter().map(|key| event(key, key)).collect()).await.unwrap();
    let mut member = log.subscribe(&["t"], "g").await.unwrap();
    let mut places = Vec::new();
    for _ in keys {
        let delivery = next(&mut member).await;
        member.commit(&delivery).await.unwrap();
        places.push((delivery.event.key, delivery.partition));
    }
    places.sort();
    let expected = [("", 2), ("a", 7), ("models/sotu/versions/12", 4), ("trainingJobs/1", 0)];
    assert_eq!(places, expected.map(|(key, partition)| (key.to_owned(), partition)));
}

#[tokio::test]
async fn a_file_that_is_no_log_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, "this is not a database, and it is long enough to be looked at as if it were one").unwrap();
    let newer = folder.path().join("newer");
    Connection::open(&newer).unwrap().pragma_update(None, "user_version", 99).unwrap();
    for (url, hint) in [
        ("redis://host".to_owned(), "file:///path/to/events.db"),
        ("file:relative".to_owned(), "absolute"),
        (format!("file://{}", file.display()), "not a database"),
        (format!("file://{}", newer.display()), "newer version"),
        (format!("file://{}/file/x.db", folder.path().display()), "file"),
    ] {
        let text = crate::connect(&url).await.map(drop).unwrap_err().to_string();
        assert!(text.contains(&url) && text.contains(hint), "{text}");
    }
}
