//! What callers of the store see while PostgreSQL is restarted, or cut off at the worst moment. Runs where TIDEMILL_TEST_POSTGRES is set;
//! the server that is restarted is one of the test's own.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidemill_faults::{Fault, Proxy, Server};
use tidemill_resources::{Batch, Error, List, OutboxEvent, Store, Write};

const HEALED: Duration = Duration::from_secs(15);

/// The server's URL, with a schema of the test's own.
fn url(test: &str) -> Option<String> {
    let Ok(url) = std::env::var("TIDEMILL_TEST_POSTGRES") else {
        println!("skipped: postgres faults: TIDEMILL_TEST_POSTGRES is not set; run make deps-up");
        return None;
    };
    let mark =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970").as_nanos();
    // What a proxy is to read is not encrypted.
    Some(format!("{url}?sslmode=disable&schema={test}_{mark}"))
}

/// The same server by way of a proxy.
async fn proxied(url: &str) -> (String, Proxy) {
    let (_, rest) = url.split_once('@').expect("a user before the host");
    let (place, _) = rest.split_once('/').expect("a database after the host");
    let proxy = Proxy::start(place.parse().expect("an address with a port")).await;
    (url.replace(place, &proxy.address().to_string()), proxy)
}

fn batch(name: &str) -> Batch {
    let event = OutboxEvent {
        id: name.to_owned(),
        topic: "t".to_owned(),
        key: "k".to_owned(),
        event_type: "e".to_owned(),
        payload: Bytes::new(),
        headers: Vec::new(),
    };
    let write = Write::Create { name: name.to_owned(), body: Bytes::from("1"), request_id: Some(name.to_owned()) };
    Batch { writes: vec![write], events: vec![event] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_answer_is_lost_is_retried_and_written_once() {
    let Some(url) = url("lost") else { return };
    let (by_proxy, proxy) = proxied(&url).await;
    let store = tidemill_resources::connect(&by_proxy).await.unwrap();
    proxy.set(Fault::LoseAnswer(b"COMMIT"));
    assert!(matches!(store.commit(batch("models/a")).await, Err(Error::Unavailable { .. })));
    assert_eq!(proxy.fault(), Fault::None, "the answer was not lost");
    let direct = tidemill_resources::connect(&url).await.unwrap();
    let written = direct.get("models/a").await.expect("the commit itself went through");
    assert_eq!(store.commit(batch("models/a")).await.unwrap(), [written]);
    assert_eq!(direct.pending(10).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn restarts_in_the_middle_of_transactions_lose_and_double_nothing() {
    if url("restarts").is_none() {
        return;
    }
    let server = Server::start("postgres");
    let url = server.variable("TIDEMILL_TEST_POSTGRES");
    let store = tidemill_resources::connect(&url).await.unwrap();
    let (stop, unavailable) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let (store, stop, unavailable) = (store.clone(), stop.clone(), unavailable.clone());
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let name = format!("models/{writer}-{:05}", acknowledged.len());
                let begin = Instant::now();
                loop {
                    match store.commit(batch(&name)).await {
                        Ok(_) => break,
                        Err(Error::Unavailable { .. }) => {
                            unavailable.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_millis(50)).await;
                        }
                        Err(error) => panic!("{error}"),
                    }
                    assert!(begin.elapsed() < HEALED, "{name} is not written");
                }
                acknowledged.push(name);
            }
            acknowledged
        });
    }
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        server.quit();
        server.start_again();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.store(true, Ordering::Relaxed);
    let acknowledged: HashSet<String> = writers.join_all().await.into_iter().flatten().collect();
    let list = List { collection: "models/-".to_owned(), limit: usize::MAX, ..List::default() };
    let present: Vec<String> = store.list(list).await.unwrap().into_iter().map(|record| record.name).collect();
    let events: Vec<String> = store.pending(usize::MAX).await.unwrap().into_iter().map(|one| one.event.id).collect();
    println!(
        "{} commits acknowledged over 3 restarts, {} calls told to retry",
        acknowledged.len(),
        unavailable.load(Ordering::Relaxed)
    );
    assert!(unavailable.load(Ordering::Relaxed) > 0, "nobody noticed a restart");
    assert_eq!(present.len(), acknowledged.len());
    assert_eq!(present.into_iter().collect::<HashSet<_>>(), acknowledged);
    assert_eq!(events.len(), acknowledged.len(), "an event was lost or doubled");
    assert_eq!(events.into_iter().collect::<HashSet<_>>(), acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_gives_up_before_another_leads() {
    let Some(url) = url("leader") else { return };
    let (by_proxy, proxy) = proxied(&url).await;
    let one = tidemill_resources::connect(&by_proxy).await.unwrap();
    let other = tidemill_resources::connect(&url).await.unwrap();
    let mut leadership = one.lead().await.unwrap().unwrap();
    assert!(other.lead().await.unwrap().is_none());
    let begin = Instant::now();
    proxy.set(Fault::HalfOpen);
    let lost = async {
        leadership.lost().await;
        begin.elapsed()
    };
    let led = async {
        loop {
            if let Some(heir) = other.lead().await.unwrap() {
                return (begin.elapsed(), heir);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let (lost, (led, _heir)) = tokio::time::timeout(HEALED, async { tokio::join!(lost, led) }).await.unwrap();
    println!("the leader gave up after {lost:?}, another led after {led:?}");
    assert!(lost < led && lost < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_server_holds_callers_no_longer_than_their_bound_and_is_used_again() {
    let Some(url) = url("stall") else { return };
    let (by_proxy, proxy) = proxied(&url).await;
    let store: Arc<dyn Store> = tidemill_resources::connect(&by_proxy).await.unwrap();
    store.commit(batch("models/a")).await.unwrap();
    proxy.set(Fault::Stall);
    let begin = Instant::now();
    assert!(matches!(store.get("models/a").await, Err(Error::Unavailable { .. })));
    assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
    proxy.heal();
    store.get("models/a").await.unwrap();
    store.commit(batch("models/b")).await.unwrap();
}
