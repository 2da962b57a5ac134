//! The promises of an event log, one function each; every adapter is held to them. Each takes an empty log.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout};

use crate::{Delivery, Event, Log, Subscription};

const TOPIC: &str = "tidemill.test.events";

/// An event arrives as it was appended: id, key, type, time, headers and payload.
pub async fn an_event_arrives_as_it_was_appended(log: &Arc<dyn Log>) {
    let mut sent = event("1", "key");
    sent.headers = vec![("traceparent".to_owned(), "00-1-2-01".to_owned()), ("empty".to_owned(), String::new())];
    sent.payload = Bytes::from_static(b"\0\xff payload");
    log.append(vec![sent.clone()]).await.expect("append");
    let mut member = join(log, "group").await;
    let delivery = next(&mut member).await;
    assert_eq!(delivery.event, sent);
    assert_eq!(delivery.attempt, 1);
}

/// Events of one key arrive in the order in which they were appended, within a batch and across batches.
pub async fn events_of_one_key_keep_their_order(log: &Arc<dyn Log>) {
    let mut members = vec![join(log, "group").await, join(log, "group").await];
    for batch in 0..5 {
        let events = (0..20).map(|index| event(&format!("{batch}-{index}"), &format!("key-{}", index % 7))).collect();
        log.append(events).await.expect("append");
    }
    let mut seen: HashMap<String, Vec<(u32, u32)>> = HashMap::new();
    for _ in 0..100 {
        let (member, delivery) = first(&mut members).await;
        members[member].commit(&delivery).await.expect("commit");
        let (batch, index) = delivery.event.id.split_once('-').expect("ids have two parts");
        let place = (batch.parse().expect("a number"), index.parse().expect("a number"));
        seen.entry(delivery.event.key).or_default().push(place);
    }
    assert_eq!(seen.len(), 7);
    assert!(seen.values().all(|places| places.is_sorted()), "{seen:?}");
}

/// The next event of a partition waits until the one before is committed.
pub async fn a_partition_hands_out_one_event_at_a_time(log: &Arc<dyn Log>) {
    log.append(vec![event("1", "key"), event("2", "key")]).await.expect("append");
    let (mut one, mut two) = (join(log, "group").await, join(log, "group").await);
    let (member, delivery) = first_of(&mut one, &mut two).await;
    assert_eq!(delivery.event.id, "1");
    nothing(&mut one).await;
    nothing(&mut two).await;
    [&mut one, &mut two][member].commit(&delivery).await.expect("commit");
    assert_eq!(first_of(&mut one, &mut two).await.1.event.id, "2");
}

/// What a member had not committed when it left is received again, as a further attempt.
pub async fn an_uncommitted_event_comes_again(log: &Arc<dyn Log>) {
    log.append(vec![event("1", "key")]).await.expect("append");
    for attempt in 1..=3 {
        let mut member = join(log, "group").await;
        let delivery = next(&mut member).await;
        assert_eq!((&*delivery.event.id, delivery.attempt), ("1", attempt));
    }
}

/// What was committed is not received again, neither by another member nor by one that joins later.
pub async fn a_committed_event_does_not_come_again(log: &Arc<dyn Log>) {
    log.append(vec![event("1", "key")]).await.expect("append");
    let mut member = join(log, "group").await;
    let delivery = next(&mut member).await;
    member.commit(&delivery).await.expect("commit");
    member.commit(&delivery).await.expect("commit again");
    nothing(&mut member).await;
    drop(member);
    log.append(vec![event("2", "key")]).await.expect("append");
    let mut member = join(log, "group").await;
    let delivery = next(&mut member).await;
    assert_eq!((&*delivery.event.id, delivery.attempt), ("2", 1));
}

/// Every group receives every event, whatever other groups have done with it.
pub async fn groups_do_not_see_each_other(log: &Arc<dyn Log>) {
    log.append(vec![event("1", "key")]).await.expect("append");
    let mut one = join(log, "one").await;
    let delivery = next(&mut one).await;
    let mut two = join(log, "two").await;
    assert_eq!(next(&mut two).await.event, delivery.event);
    one.commit(&delivery).await.expect("commit");
    drop(two);
    assert_eq!(next(&mut join(log, "two").await).await.event, delivery.event);
}

/// A group that comes late receives all events from the first.
pub async fn a_new_group_starts_at_the_beginning(log: &Arc<dyn Log>) {
    let ids: HashSet<String> = (0..30).map(|index| index.to_string()).collect();
    log.append(ids.iter().map(|id| event(id, id)).collect()).await.expect("append");
    for group in ["early", "late"] {
        assert_eq!(drain(&mut join(log, group).await, ids.len()).await, ids);
    }
}

/// An event whose id is in the topic already is not appended again, within a batch or later; in another topic it is another event.
pub async fn the_same_id_again_changes_nothing(log: &Arc<dyn Log>) {
    let other = Event { topic: "tidemill.other.events".to_owned(), ..event("1", "key") };
    log.append(vec![event("1", "key"), event("1", "key"), other]).await.expect("append");
    log.append(vec![event("1", "another key"), event("2", "key")]).await.expect("append");
    let mut member = join(log, "group").await;
    for id in ["1", "2"] {
        let delivery = next(&mut member).await;
        assert_eq!((&*delivery.event.id, &*delivery.event.key), (id, "key"));
        member.commit(&delivery).await.expect("commit");
    }
    // A third event of that key comes next, so nothing stood before it.
    log.append(vec![event("3", "key")]).await.expect("append");
    assert_eq!(next(&mut member).await.event.id, "3");
    let mut member = log.subscribe(&["tidemill.other.events"], "group").await.expect("subscribe");
    assert_eq!(next(&mut member).await.event.id, "1");
}

/// A member receives the topics that it asked for and no others.
pub async fn a_member_receives_its_topics(log: &Arc<dyn Log>) {
    let of = |topic: &str| Event { topic: topic.to_owned(), ..event(topic, "key") };
    log.append(vec![of("a"), of("b"), of("c")]).await.expect("append");
    let mut member = log.subscribe(&["a", "c", "never"], "group").await.expect("subscribe");
    assert_eq!(drain(&mut member, 2).await, HashSet::from(["a".to_owned(), "c".to_owned()]));
    nothing(&mut member).await;
}

/// A member that waits receives what is appended then.
pub async fn who_waits_is_woken(log: &Arc<dyn Log>) {
    let mut member = join(log, "group").await;
    let (delivery, appended) = tokio::join!(next(&mut member), async {
        tokio::task::yield_now().await;
        log.append(vec![event("1", "key")]).await
    });
    appended.expect("append");
    assert_eq!(delivery.event.id, "1");
}

/// A `next` that is given up takes no event with it, whenever that happens.
pub async fn a_next_that_is_given_up_loses_nothing(log: &Arc<dyn Log>) {
    let ids: HashSet<String> = (0..40).map(|index| index.to_string()).collect();
    let mut member = join(log, "group").await;
    log.append(ids.iter().map(|id| event(id, id)).collect()).await.expect("append");
    let mut seen = HashSet::new();
    let mut given_up: u32 = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while seen.len() < ids.len() {
        assert!(Instant::now() < deadline, "no progress: {} of {}", seen.len(), ids.len());
        given_up += 1;
        let delivery = tokio::select! {
            biased;
            delivery = member.next() => delivery.expect("next"),
            () = polls(given_up) => continue,
        };
        assert_eq!(delivery.attempt, 1, "an event that nobody received counts no attempt");
        member.commit(&delivery).await.expect("commit");
        assert!(seen.insert(delivery.event.id));
        given_up = 0;
    }
    assert_eq!(seen, ids);
    nothing(&mut member).await;
}

/// Members of one group share its events: each event goes to one of them, and all get some.
pub async fn members_share_the_events(log: &Arc<dyn Log>) {
    let ids: HashSet<String> = (0..60).map(|index| index.to_string()).collect();
    let mut members = vec![join(log, "group").await, join(log, "group").await, join(log, "group").await];
    log.append(ids.iter().map(|id| event(id, id)).collect()).await.expect("append");
    let mut held = Vec::new();
    for member in &mut members {
        held.push(next(member).await);
    }
    let mut seen: HashSet<String> = held.iter().map(|delivery| delivery.event.id.clone()).collect();
    assert_eq!(seen.len(), 3, "each has one of its own");
    for (member, delivery) in members.iter_mut().zip(&held) {
        member.commit(delivery).await.expect("commit");
    }
    while seen.len() < ids.len() {
        let (member, delivery) = first(&mut members).await;
        members[member].commit(&delivery).await.expect("commit");
        assert!(seen.insert(delivery.event.id), "received twice");
    }
    assert_eq!(seen, ids);
}

/// When a member dies, what it held and what it would have received goes to the others, who are waiting already.
pub async fn a_dead_members_work_goes_on_with_another(log: &Arc<dyn Log>) {
    let ids: HashSet<String> = (0..40).map(|index| index.to_string()).collect();
    let (mut dying, mut heir) = (join(log, "group").await, join(log, "group").await);
    log.append(ids.iter().map(|id| event(id, id)).collect()).await.expect("append");
    let held = next(&mut dying).await.event.id;
    let (seen, ()) = tokio::join!(drain(&mut heir, ids.len()), async {
        tokio::task::yield_now().await;
        drop(dying);
    });
    assert!(seen.contains(&held));
    assert_eq!(seen, ids);
}

/// What was released comes again after the delay, as a further attempt; later events of its partition wait for it.
pub async fn a_released_event_comes_again_after_its_delay(log: &Arc<dyn Log>) {
    log.append(vec![event("1", "key"), event("2", "key")]).await.expect("append");
    let mut member = join(log, "group").await;
    let delivery = next(&mut member).await;
    let delay = Duration::from_millis(200);
    let released = Instant::now();
    member.release(&delivery, delay).await.expect("release");
    let again = next(&mut member).await;
    assert!(released.elapsed() >= delay);
    assert_eq!((&*again.event.id, again.attempt), ("1", 2));
    member.release(&again, Duration::ZERO).await.expect("release");
    let again = next(&mut member).await;
    assert_eq!((&*again.event.id, again.attempt), ("1", 3));
    member.commit(&again).await.expect("commit");
    let second = next(&mut member).await;
    assert_eq!((&*second.event.id, second.attempt), ("2", 1));
}

/// While one partition is held or delayed, the others go on, each in its turn.
pub async fn no_partition_starves(log: &Arc<dyn Log>) {
    // As many keys as it takes to meet several partitions, each with enough to keep a member busy.
    let events = (0..10).flat_map(|index| (0..16).map(move |key| event(&format!("{key}-{index}"), &key.to_string())));
    log.append(events.collect()).await.expect("append");
    let mut member = join(log, "group").await;
    let stuck = next(&mut member).await;
    member.release(&stuck, Duration::from_secs(3600)).await.expect("release");
    let mut partitions = Vec::new();
    for _ in 0..8 {
        let delivery = next(&mut member).await;
        assert_ne!(delivery.partition, stuck.partition);
        member.commit(&delivery).await.expect("commit");
        partitions.push(delivery.partition);
    }
    let different: HashSet<u32> = partitions.iter().copied().collect();
    assert!(different.len() >= 3, "{partitions:?}");
}

fn event(id: &str, key: &str) -> Event {
    Event {
        id: id.to_owned(),
        topic: TOPIC.to_owned(),
        key: key.to_owned(),
        event_type: "tidemill.test.v1.Test".to_owned(),
        time_micros: 1_700_000_000_000_000,
        headers: Vec::new(),
        payload: Bytes::from(id.to_owned()),
    }
}

async fn join(log: &Arc<dyn Log>, group: &str) -> Box<dyn Subscription> {
    log.subscribe(&[TOPIC], group).await.expect("subscribe")
}

async fn next(member: &mut Box<dyn Subscription>) -> Delivery {
    timeout(Duration::from_secs(30), member.next()).await.expect("an event within 30 s").expect("next")
}

/// Nothing comes, for long enough that it would have.
async fn nothing(member: &mut Box<dyn Subscription>) {
    if let Ok(delivery) = timeout(Duration::from_millis(100), member.next()).await {
        panic!("unexpected {delivery:?}");
    }
}

/// The first event that one of some members receives, and which.
async fn first(members: &mut [Box<dyn Subscription>]) -> (usize, Delivery) {
    let waiting = async {
        loop {
            for (index, member) in members.iter_mut().enumerate() {
                if let Ok(delivery) = timeout(Duration::from_millis(20), member.next()).await {
                    return (index, delivery.expect("next"));
                }
            }
        }
    };
    timeout(Duration::from_secs(30), waiting).await.expect("an event within 30 s")
}

async fn first_of(one: &mut Box<dyn Subscription>, two: &mut Box<dyn Subscription>) -> (usize, Delivery) {
    tokio::select! {
        delivery = next(one) => (0, delivery),
        delivery = next(two) => (1, delivery),
    }
}

/// Receives and commits a number of events; their ids.
async fn drain(member: &mut Box<dyn Subscription>, count: usize) -> HashSet<String> {
    let mut ids = HashSet::new();
    while ids.len() < count {
        let delivery = next(member).await;
        member.commit(&delivery).await.expect("commit");
        ids.insert(delivery.event.id);
    }
    ids
}

/// Is ready after being polled some times.
async fn polls(count: u32) {
    for _ in 0..count {
        tokio::task::yield_now().await;
    }
}
