//! What two processes with one store are promised; each takes an empty store as two handles.

use std::time::Duration;

use super::*;

/// Of several that try, one leads; when it gives up, another does.
pub async fn of_several_one_leads(one: &Arc<dyn Store>, two: &Arc<dyn Store>) {
    let first = one.lead().await.expect("lead").expect("nobody leads yet");
    assert!(two.lead().await.expect("lead").is_none());
    assert!(one.lead().await.expect("lead").is_none());
    drop(first);
    let second = eventually_leads(two).await;
    assert!(one.lead().await.expect("lead").is_none());
    drop(second);
}

/// What one commits the other reads at once, and an etag that one has used up the other cannot use.
pub async fn both_see_one_store(one: &Arc<dyn Store>, two: &Arc<dyn Store>) {
    let first = create(one, "models/a", "1").await;
    assert_eq!(two.get("models/a").await.expect("get"), first);
    let second = commit(two, vec![update("models/a", &first.etag, "2")]).await.expect("update").remove(0);
    assert!(matches!(commit(one, vec![delete("models/a", &first.etag)]).await, Err(Error::Conflict(_))));
    commit(one, vec![delete("models/a", &second.etag)]).await.expect("delete");
    assert!(matches!(two.get("models/a").await, Err(Error::NotFound(_))));
}

/// Both change one record with the same etag, again and again: each time one wins, and the other learns that it did not.
pub async fn of_two_with_one_etag_one_wins(one: &Arc<dyn Store>, two: &Arc<dyn Store>) {
    let mut present = create(one, "models/a", "0").await;
    for round in 0..20 {
        let race = |store: &Arc<dyn Store>, body: &str| {
            let (store, write) = (store.clone(), update("models/a", &present.etag, body));
            async move { commit(&store, vec![write]).await }
        };
        let (first, second) = tokio::join!(race(one, "1"), race(two, "2"));
        present = match (first, second) {
            (Ok(mut won), Err(Error::Conflict(_))) | (Err(Error::Conflict(_)), Ok(mut won)) => won.remove(0),
            other => panic!("round {round}: {other:?}"),
        };
        assert_eq!(two.get("models/a").await.expect("get"), present);
    }
}

/// Both create the same names at once, in batches of opposite order: of each name one record is there, whole batches win or lose.
pub async fn of_two_who_create_one_wins(one: &Arc<dyn Store>, two: &Arc<dyn Store>) {
    for round in 0..10 {
        let (a, b) = (format!("models/{round}-a"), format!("models/{round}-b"));
        let race = |store: &Arc<dyn Store>, names: [&String; 2], body: &str| {
            let writes = names.iter().map(|name| write(name, body, None)).collect();
            let (store, batch) = (store.clone(), Batch { writes, events: vec![event(body)] });
            async move { store.commit(batch).await }
        };
        let (first, second) = tokio::join!(race(one, [&a, &b], "1"), race(two, [&b, &a], "2"));
        let winner = match (first, second) {
            (Ok(_), Err(Error::AlreadyExists(_))) => "1",
            (Err(Error::AlreadyExists(_)), Ok(_)) => "2",
            other => panic!("round {round}: {other:?}"),
        };
        for name in [&a, &b] {
            assert_eq!(one.get(name).await.expect("get").body, winner);
        }
        assert_eq!(two.pending(100).await.expect("pending").len(), round + 1, "a loser's event is not published");
    }
}

/// While both commit, whoever reads the outbox from the front never misses an event that comes to stand before what was read, and
/// writes have one order: no two have the same time.
pub async fn the_outbox_has_no_gaps_that_fill_later(one: &Arc<dyn Store>, two: &Arc<dyn Store>) {
    const EACH: usize = 50;
    let mut writers = tokio::task::JoinSet::new();
    for (writer, store) in [one, two, one, two].into_iter().enumerate() {
        let store = store.clone();
        writers.spawn(async move {
            for index in 0..EACH {
                let id = format!("{writer}-{index:02}");
                let writes = vec![write(&format!("models/{id}"), "1", None)];
                store.commit(Batch { writes, events: vec![event(&id)] }).await.expect("commit");
            }
        });
    }
    let mut seen: Vec<String> = Vec::new();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while seen.len() < 4 * EACH {
        assert!(tokio::time::Instant::now() < deadline, "{} events came", seen.len());
        let pending = two.pending(7).await.expect("pending");
        if let Some(last) = pending.last() {
            // Forgetting up to the last seen would lose one that was not visible yet.
            one.published(last.sequence).await.expect("published");
        }
        seen.extend(pending.into_iter().map(|pending| pending.event.id));
    }
    writers.join_all().await;
    for writer in 0..4 {
        let own: Vec<_> = seen.iter().filter(|id| id.starts_with(&format!("{writer}-"))).collect();
        assert!(own.len() == EACH && own.is_sorted(), "{own:?}");
    }
    let list = List { collection: "models/-".to_owned(), limit: 1000, ..List::default() };
    let times: Vec<i64> = one.list(list).await.expect("list").iter().map(|record| record.create_micros).collect();
    assert_eq!(times.len(), 4 * EACH);
    assert!(times.windows(2).all(|pair| pair[0] > pair[1]), "two writes have one time");
}

/// A commit of one wakes who waits at the other.
pub async fn a_commit_of_one_wakes_the_other(one: &Arc<dyn Store>, two: &Arc<dyn Store>) {
    let mut wakes = two.committed();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    // A notice is a hint: the first may come before the other listens.
    loop {
        wakes.mark_unchanged();
        commit(one, vec![write(&format!("models/{}", uuid::Uuid::new_v4()), "1", None)]).await.expect("create");
        if tokio::time::timeout(Duration::from_secs(1), wakes.changed()).await.is_ok() {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "nobody was woken");
    }
}

/// Waits until a store leads: a leadership that was given back is free a moment later.
pub async fn eventually_leads(store: &Arc<dyn Store>) -> Box<dyn crate::Leadership> {
    for _ in 0..200 {
        if let Some(leadership) = store.lead().await.expect("lead") {
            return leadership;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody leads");
}
