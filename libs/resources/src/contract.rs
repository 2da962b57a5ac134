//! The promises of a resource store, one function each; every adapter is held to them. Each takes an empty store; those of `replicas`
//! take it as two handles, as two processes would have it.

pub mod replicas;

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use tidemill_proto::registry::v1::Model;

use crate::{Batch, Collection, Error, List, ListPage, OutboxEvent, Record, Store, Write};

/// What was created is read back, and has what the store adds.
pub async fn what_was_created_is_read_back(store: &Arc<dyn Store>) {
    let record = create(store, "models/a/versions/1", "body").await;
    assert_eq!(record, store.get("models/a/versions/1").await.expect("get"));
    assert_eq!((&*record.name, &*record.collection), ("models/a/versions/1", "models/-/versions/-"));
    assert_eq!(record.body, "body");
    assert!(!record.uid.is_empty() && !record.etag.is_empty());
    assert_eq!(record.create_micros, record.update_micros);
    assert!(matches!(store.get("models/a").await, Err(Error::NotFound(name)) if name == "models/a"));
}

/// An update keeps what identifies the record, and changes body, etag and time.
pub async fn an_update_changes_body_etag_and_time(store: &Arc<dyn Store>) {
    let before = create(store, "models/a", "1").await;
    let after = commit(store, vec![update("models/a", &before.etag, "2")]).await.expect("update").remove(0);
    assert_eq!(after, store.get("models/a").await.expect("get"));
    assert_eq!(after.body, "2");
    assert_eq!((&after.uid, after.create_micros), (&before.uid, before.create_micros));
    assert!(after.update_micros > before.update_micros && after.etag != before.etag);
    let same = commit(store, vec![update("models/a", &after.etag, "2")]).await.expect("update").remove(0);
    assert_ne!(same.etag, after.etag, "every write changes the etag");
}

/// A write with an old etag fails and changes nothing; so does one to a name that does not exist.
pub async fn a_stale_etag_conflicts(store: &Arc<dyn Store>) {
    let first = create(store, "models/a", "1").await;
    let second = commit(store, vec![update("models/a", &first.etag, "2")]).await.expect("update").remove(0);
    for write in [update("models/a", &first.etag, "3"), delete("models/a", &first.etag)] {
        assert!(matches!(commit(store, vec![write]).await, Err(Error::Conflict(name)) if name == "models/a"));
    }
    for write in [update("models/b", "x", "3"), delete("models/b", "x")] {
        assert!(matches!(commit(store, vec![write]).await, Err(Error::NotFound(name)) if name == "models/b"));
    }
    assert_eq!(store.get("models/a").await.expect("get"), second);
}

/// A deleted record is gone; its name may be used again, by another resource.
pub async fn a_deleted_name_may_be_used_again(store: &Arc<dyn Store>) {
    let first = create(store, "models/a", "1").await;
    let deleted = commit(store, vec![delete("models/a", &first.etag)]).await.expect("delete");
    assert_eq!(deleted, std::slice::from_ref(&first));
    assert!(matches!(store.get("models/a").await, Err(Error::NotFound(_))));
    let second = create(store, "models/a", "1").await;
    assert!(second.uid != first.uid && second.etag != first.etag && second.create_micros > first.create_micros);
}

/// A write and its events are there together, the events in order and unchanged.
pub async fn a_write_commits_with_its_events(store: &Arc<dyn Store>) {
    let mut wakes = store.committed();
    let mut event = event("1");
    event.headers = vec![("traceparent".to_owned(), "00-1".to_owned()), ("empty".to_owned(), String::new())];
    event.payload = Bytes::from_static(b"\0\xff");
    let events = vec![event, self::event("2")];
    let batch = Batch { writes: vec![write("models/a", "1", None)], events: events.clone() };
    store.commit(batch).await.expect("commit");
    assert!(wakes.has_changed().expect("the store is open"));
    wakes.mark_unchanged();
    store.get("models/a").await.expect("get");
    let pending = store.pending(10).await.expect("pending");
    assert_eq!(pending.iter().map(|pending| pending.event.clone()).collect::<Vec<_>>(), events);
    assert!(pending[0].sequence < pending[1].sequence);
}

/// If one write of a batch fails, nothing of the batch is there, neither earlier writes nor events.
pub async fn a_failed_batch_leaves_nothing(store: &Arc<dyn Store>) {
    let kept = create(store, "models/kept", "1").await;
    let good = [write("models/a", "1", None), update("models/kept", &kept.etag, "2")];
    for bad in [write("models/a", "2", None), update("models/kept", &kept.etag, "3"), delete("models/none", "x")] {
        let writes = [&good[..], &[bad]].concat();
        store.commit(Batch { writes, events: vec![event("1")] }).await.expect_err("the last write fails");
        assert!(matches!(store.get("models/a").await, Err(Error::NotFound(_))));
        assert_eq!(store.get("models/kept").await.expect("get"), kept);
        assert!(store.pending(10).await.expect("pending").is_empty());
    }
}

/// A create that is repeated with the request id of the first returns the first, and its events are not repeated. With another
/// request id, or none, the name is taken.
pub async fn a_retried_create_writes_once(store: &Arc<dyn Store>) {
    let batch = |body: &str, request: Option<&str>| Batch {
        writes: vec![write("models/other", "1", request), write("models/a", body, request)],
        events: vec![event("1")],
    };
    let first = store.commit(batch("1", Some("r"))).await.expect("create");
    let retried = store.commit(batch("2", Some("r"))).await.expect("retry");
    assert_eq!(retried, first);
    assert_eq!(store.pending(10).await.expect("pending").len(), 1);
    for request in [Some("s"), Some(""), None] {
        assert!(
            matches!(store.commit(batch("2", request)).await, Err(Error::AlreadyExists(name)) if name == "models/other")
        );
    }
    let changed = commit(store, vec![update("models/a", &first[1].etag, "3")]).await.expect("update").remove(0);
    assert_eq!(store.commit(batch("4", Some("r"))).await.expect("a late retry")[1], changed);
    create(store, "models/unnamed", "1").await;
    assert!(matches!(commit(store, vec![write("models/unnamed", "1", Some(""))]).await, Err(Error::AlreadyExists(_))));
}

/// Many create the same name at once: one creates, the others learn so; with one request id all get the same.
pub async fn of_many_creates_one_wins(store: &Arc<dyn Store>) {
    let mut racers = tokio::task::JoinSet::new();
    for racer in 0..16 {
        let models = Collection::<Model>::new(store.clone());
        racers.spawn(async move {
            let model = Model { name: "models/a".to_owned(), description: racer.to_string(), ..Model::default() };
            models.create(&model, Some("r"), vec![event(&racer.to_string())]).await.expect("create")
        });
    }
    let results = racers.join_all().await;
    assert_eq!(results.iter().filter(|(_, created)| *created).count(), 1);
    assert!(results.iter().all(|(model, _)| *model == results[0].0));
    assert_eq!(store.pending(100).await.expect("pending").len(), 1);
}

/// Lists are newest first, by collection and beginning of the name; an update does not move a record.
pub async fn lists_are_newest_first(store: &Arc<dyn Store>) {
    let names = [
        "models/a/versions/2",
        "models/b/versions/1",
        "models/a/versions/1",
        "models/a_/versions/1",
        "models/a%/versions/1",
    ];
    for name in names {
        create(store, name, "1").await;
    }
    create(store, "models/a", "1").await;
    let first = store.get(names[0]).await.expect("get");
    commit(store, vec![update(names[0], &first.etag, "2")]).await.expect("update");
    let list = async |prefix: &str, limit| {
        let list =
            List { collection: "models/-/versions/-".to_owned(), name_prefix: prefix.to_owned(), limit, after: None };
        store.list(list).await.expect("list").into_iter().map(|record| record.name).collect::<Vec<_>>()
    };
    assert_eq!(list("", 10).await, names.iter().rev().copied().collect::<Vec<_>>());
    assert_eq!(list("", 2).await, [names[4], names[3]]);
    assert_eq!(list("models/a/versions/", 10).await, [names[2], names[0]]);
    assert_eq!(list("models/a_", 10).await, [names[3]], "no character of a prefix is a wildcard");
    assert_eq!(list("models/a%", 10).await, [names[4]]);
}

/// Paging shows every record that was there at the start exactly once, whatever is created or deleted meanwhile.
pub async fn pages_hold_while_others_write(store: &Arc<dyn Store>) {
    let models = Collection::<Model>::new(store.clone());
    let expected: Vec<String> = (0..25).map(|index| format!("models/old-{index}")).collect();
    for name in &expected {
        models.create(&Model { name: name.clone(), ..Model::default() }, None, Vec::new()).await.expect("create");
    }
    let mut seen = Vec::new();
    let mut page = ListPage { page_size: 4, ..ListPage::default() };
    loop {
        let found = models.list(page.clone()).await.expect("list");
        assert!(found.items.len() <= 4);
        seen.extend(found.items.into_iter().map(|model| model.name));
        if found.next_page_token.is_empty() {
            break;
        }
        page.page_token = found.next_page_token;
        let new = Model { name: format!("models/new-{}", seen.len()), ..Model::default() };
        models.create(&new, None, Vec::new()).await.expect("create meanwhile");
        // The record that the token points at may go away.
        let last = seen.last().expect("a page that has a next one is not empty");
        models.delete(last, "", Vec::new()).await.expect("delete meanwhile");
    }
    assert_eq!(seen, expected.into_iter().rev().collect::<Vec<_>>());
}

/// Events wait in the order of their commits, also when many commit at once, until they are published.
pub async fn the_outbox_keeps_the_order_of_commits(store: &Arc<dyn Store>) {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let store = store.clone();
        writers.spawn(async move {
            for index in 0..5 {
                let events = vec![event(&format!("{writer}-{index}-a")), event(&format!("{writer}-{index}-b"))];
                store.commit(Batch { writes: Vec::new(), events }).await.expect("commit");
            }
        });
    }
    writers.join_all().await;
    let pending = store.pending(100).await.expect("pending");
    assert_eq!(pending.len(), 80);
    assert!(pending.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    let ids: Vec<&str> = pending.iter().map(|pending| pending.event.id.as_str()).collect();
    for pair in ids.chunks(2) {
        assert_eq!(pair[0].strip_suffix("-a"), pair[1].strip_suffix("-b"), "the events of a commit stand together");
    }
    for writer in 0..8 {
        let own: Vec<_> = ids.iter().filter(|id| id.starts_with(&format!("{writer}-"))).collect();
        assert!(own.is_sorted(), "{own:?}");
    }
}

/// What was published is forgotten, the rest waits, and sequences go on: a relay that is late cannot forget a later event.
pub async fn what_was_published_is_forgotten(store: &Arc<dyn Store>) {
    for id in ["1", "2", "3"] {
        store.commit(Batch { writes: Vec::new(), events: vec![event(id)] }).await.expect("commit");
    }
    let pending = store.pending(2).await.expect("pending");
    assert_eq!(pending.iter().map(|pending| pending.event.id.as_str()).collect::<Vec<_>>(), ["1", "2"]);
    store.published(pending[1].sequence).await.expect("published");
    let rest = store.pending(10).await.expect("pending");
    assert_eq!(rest.iter().map(|pending| pending.event.id.as_str()).collect::<Vec<_>>(), ["3"]);
    store.published(rest[0].sequence).await.expect("published");
    store.commit(Batch { writes: Vec::new(), events: vec![event("4")] }).await.expect("commit");
    let last = store.pending(10).await.expect("pending");
    assert!(last[0].sequence > rest[0].sequence);
    store.published(rest[0].sequence).await.expect("published again");
    assert_eq!(store.pending(10).await.expect("pending").len(), 1);
}

/// Many change one resource at once: every change is there in the end.
pub async fn a_concurrent_change_is_never_lost(store: &Arc<dyn Store>) {
    let models = Collection::<Model>::new(store.clone());
    models.create(&Model { name: "models/a".to_owned(), ..Model::default() }, None, Vec::new()).await.expect("create");
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let models = models.clone();
        writers.spawn(async move {
            for index in 0..5 {
                let id = format!("{writer}-{index}");
                let change = |model: &mut Model| {
                    model.labels.insert(id.clone(), String::new());
                    Ok::<_, Error>(vec![event(&id)])
                };
                models.modify("models/a", change).await.expect("modify");
            }
        });
    }
    writers.join_all().await;
    assert_eq!(models.get("models/a").await.expect("get").labels.len(), 40);
    let pending = store.pending(100).await.expect("pending");
    assert_eq!(pending.iter().map(|pending| &pending.event.id).collect::<HashSet<_>>().len(), 40);
    assert_eq!(pending.len(), 40);
}

/// Of several that try, one leads; when it gives up, another does.
pub async fn of_several_one_leads(store: &Arc<dyn Store>) {
    replicas::of_several_one_leads(store, store).await;
}

fn write(name: &str, body: &str, request_id: Option<&str>) -> Write {
    let (name, body) = (name.to_owned(), Bytes::from(body.to_owned()));
    Write::Create { name, body, request_id: request_id.map(str::to_owned) }
}

fn update(name: &str, etag: &str, body: &str) -> Write {
    Write::Update { name: name.to_owned(), etag: etag.to_owned(), body: Bytes::from(body.to_owned()) }
}

fn delete(name: &str, etag: &str) -> Write {
    Write::Delete { name: name.to_owned(), etag: etag.to_owned() }
}

fn event(id: &str) -> OutboxEvent {
    OutboxEvent {
        id: id.to_owned(),
        topic: "tidemill.models.events".to_owned(),
        key: "models/a".to_owned(),
        event_type: "tidemill.registry.v1.Model".to_owned(),
        payload: Bytes::from(id.to_owned()),
        headers: Vec::new(),
    }
}

async fn commit(store: &Arc<dyn Store>, writes: Vec<Write>) -> crate::Result<Vec<Record>> {
    store.commit(Batch { writes, events: Vec::new() }).await
}

async fn create(store: &Arc<dyn Store>, name: &str, body: &str) -> Record {
    commit(store, vec![write(name, body, None)]).await.expect("create").remove(0)
}
