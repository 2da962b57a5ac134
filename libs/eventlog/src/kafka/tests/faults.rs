//! A broker that is away, slow or unwilling: librdkafka's own broker, which does on demand what real ones do at night.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;

const ALL_BROKERS: i32 = -1;

struct Mock {
    broker: MockCluster<'static, DefaultProducerContext>,
    log: Arc<dyn Log>,
    url: String,
}

impl Mock {
    async fn start() -> Mock {
        let broker = MockCluster::new(1).unwrap();
        broker.create_topic("t", 4, 1).unwrap();
        let url = format!("kafka://{}", broker.bootstrap_servers());
        let log = crate::connect(&url).await.unwrap();
        Mock { broker, log, url }
    }

    /// What a reader of all events gets: every event of ours once, in order, though some may be marked as the last.
    async fn holds(&self, ids: &[&str]) {
        self.log.append(vec![event("last", "k")]).await.unwrap();
        let mut member = self.log.subscribe(&["t"], "reader").await.unwrap();
        assert_eq!(until(&mut member, "last").await, [ids, &["last"]].concat());
    }

    /// An append that the broker does not answer says so in time, and names the broker.
    async fn is_unavailable(&self, id: &str) {
        let start = Instant::now();
        let error = self.log.append(vec![event(id, "k")]).await.unwrap_err();
        assert!(matches!(&error, Error::Unavailable { url, .. } if *url == self.url), "{error}");
        assert!(start.elapsed() < PATIENCE + Duration::from_secs(3), "{:?}", start.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_the_broker_missed_is_there_once_when_it_is_back() {
    let mock = Mock::start().await;
    mock.log.append(vec![event("1", "k")]).await.unwrap();
    mock.broker.broker_down(ALL_BROKERS).unwrap();
    mock.is_unavailable("2").await;
    mock.is_unavailable("2").await;
    mock.broker.broker_up(ALL_BROKERS).unwrap();
    let back = Instant::now();
    mock.log.append(vec![event("2", "k"), event("3", "k")]).await.unwrap();
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    mock.holds(&["1", "2", "3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_at_start_is_found_when_it_comes() {
    let mock = Mock::start().await;
    mock.broker.broker_down(ALL_BROKERS).unwrap();
    mock.is_unavailable("1").await;
    let text = mock.log.subscribe(&["t"], "g").await.map(drop).unwrap_err().to_string();
    assert!(text.contains(&mock.url), "{text}");
    mock.broker.broker_up(ALL_BROKERS).unwrap();
    let back = Instant::now();
    mock.log.append(vec![event("1", "k")]).await.unwrap();
    let mut member = mock.log.subscribe(&["t"], "g").await.unwrap();
    assert_eq!(next(&mut member).await.event.id, "1");
    assert!(back.elapsed() < Duration::from_secs(15), "{:?}", back.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_requests_are_tried_again_and_double_nothing() {
    use RDKafkaRespErr::*;
    let mock = Mock::start().await;
    for error in [
        RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND,
        RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
        RD_KAFKA_RESP_ERR__TRANSPORT,
        RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
    ] {
        mock.broker.request_errors(RDKafkaApiKey::Produce, &[error, error]);
        mock.broker.request_errors(RDKafkaApiKey::ListOffsets, &[RD_KAFKA_RESP_ERR__TRANSPORT]);
        let id = format!("{error:?}");
        // A failed look is an error of that append; whoever has the event tries again.
        while mock.log.append(vec![event(&id, "k")]).await.is_err() {}
        mock.log.append(vec![event(&id, "k")]).await.unwrap();
    }
    let ids = [
        "RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS_AFTER_APPEND",
        "RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION",
        "RD_KAFKA_RESP_ERR__TRANSPORT",
        "RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT",
    ];
    mock.holds(&ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_broker_is_waited_for_and_a_stalled_one_is_not() {
    let mock = Mock::start().await;
    mock.log.append(vec![event("1", "k")]).await.unwrap();
    mock.broker.broker_round_trip_time(ALL_BROKERS, Duration::from_secs(1)).unwrap();
    mock.log.append(vec![event("2", "k")]).await.unwrap();
    mock.broker.broker_round_trip_time(ALL_BROKERS, Duration::from_secs(25)).unwrap();
    mock.is_unavailable("3").await;
    mock.broker.broker_round_trip_time(ALL_BROKERS, Duration::ZERO).unwrap();
    while mock.log.append(vec![event("3", "k")]).await.is_err() {}
    mock.holds(&["1", "2", "3"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_is_refused_is_tried_again() {
    let mock = Mock::start().await;
    mock.log.append(vec![event("1", "k"), event("2", "k")]).await.unwrap();
    let mut member = mock.log.subscribe(&["t"], "g").await.unwrap();
    let delivery = next(&mut member).await;
    let errors = [RDKafkaRespErr::RD_KAFKA_RESP_ERR_REBALANCE_IN_PROGRESS; 2];
    mock.broker.request_errors(RDKafkaApiKey::OffsetCommit, &errors);
    member.commit(&delivery).await.unwrap();
    drop(member);
    let mut heir = mock.log.subscribe(&["t"], "g").await.unwrap();
    assert_eq!(next(&mut heir).await.event.id, "2");
}
