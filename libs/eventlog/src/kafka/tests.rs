//! The promises against a real broker, and what only several processes and foreign tools show.

mod faults;
mod foreign;
mod processes;
mod restarts;

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;

use super::*;
use crate::{Delivery, contract};

macro_rules! promises {
    ($($promise:ident)*) => {
        mod promises {
            use super::*;
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $promise() {
                let Some(cluster) = Cluster::real() else { return };
                contract::$promise(&cluster.log().await).await;
                cluster.remove().await;
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

/// A broker, and a prefix that a test has for itself.
struct Cluster {
    url: String,
    prefix: String,
}

impl Cluster {
    /// The real broker, if the environment names one.
    fn real() -> Option<Cluster> {
        Self::of("TIDEMILL_TEST_KAFKA", |servers| format!("kafka://{servers}?"))
    }

    /// Its listener for TLS and SASL.
    fn secure() -> Option<Cluster> {
        Self::of("TIDEMILL_TEST_KAFKA_TLS", |url| format!("{url}&"))
    }

    fn of(variable: &str, url: impl Fn(String) -> String) -> Option<Cluster> {
        let Ok(value) = std::env::var(variable) else {
            eprintln!("skipped: kafka contract: {variable} is not set; run make deps-up");
            return None;
        };
        Some(Self::at(&url(value)))
    }

    fn at(url: &str) -> Cluster {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
        let prefix = format!("test-{time}-{}-{}.", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Cluster { url: format!("{url}topic_prefix={prefix}"), prefix }
    }

    /// A log of its own, as every process has one.
    async fn log(&self) -> Arc<dyn Log> {
        crate::connect(&self.url).await.unwrap()
    }

    fn config(&self) -> ClientConfig {
        Address::parse(&self.url, &["topic_prefix"]).unwrap().config
    }

    /// Deletes the topics of this test, so that the broker stays quick.
    async fn remove(self) {
        let admin: AdminClient<DefaultClientContext> = self.config().create().unwrap();
        let metadata = blocking(move || {
            let metadata = admin.inner().fetch_metadata(None, PATIENCE).unwrap();
            let names: Vec<String> = metadata.topics().iter().map(|topic| topic.name().to_owned()).collect();
            (admin, names)
        });
        let (admin, names) = metadata.await;
        let ours: Vec<&str> = names.iter().filter(|name| name.starts_with(&self.prefix)).map(String::as_str).collect();
        admin.delete_topics(&ours, &AdminOptions::new()).await.unwrap();
        blocking(move || drop(admin)).await;
    }
}

fn event(id: &str, key: &str) -> Event {
    Event {
        id: id.to_owned(),
        topic: "t".to_owned(),
        key: key.to_owned(),
        event_type: "e".to_owned(),
        time_micros: 1_700_000_000_123_456,
        headers: Vec::new(),
        payload: Bytes::from_static(b"\x01\x00"),
    }
}

async fn next(member: &mut Box<dyn Subscription>) -> Delivery {
    tokio::time::timeout(Duration::from_secs(60), member.next()).await.expect("an event within 60 s").unwrap()
}

/// Receives and commits until an event with this id has come; the ids in order.
async fn until(member: &mut Box<dyn Subscription>, last: &str) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.last().is_none_or(|id| id != last) {
        let delivery = next(member).await;
        member.commit(&delivery).await.unwrap();
        ids.push(delivery.event.id);
    }
    ids
}
