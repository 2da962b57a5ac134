//! What foreign tools see of our topics, and we of theirs; how topics are made; TLS and SASL.

use std::collections::HashMap;

use rdkafka::Message;
use rdkafka::admin::{NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::StreamConsumer;
use rdkafka::message::{BorrowedMessage, Headers};
use rdkafka::producer::{FutureProducer, FutureRecord};
use tidemill_proto::topics;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_a_cloud_event_to_other_tools() {
    let Some(cluster) = Cluster::real() else { return };
    let mut sent = event("id-1", "a key");
    sent.topic = topics::FEEDBACK_EVENTS.to_owned();
    sent.headers = vec![("traceparent".to_owned(), "00-1-2-01".to_owned())];
    cluster.log().await.append(vec![sent.clone()]).await.unwrap();
    let consumer: StreamConsumer =
        cluster.config().set("group.id", &cluster.prefix).set("auto.offset.reset", "earliest").create().unwrap();
    consumer.subscribe(&[&format!("{}{}", cluster.prefix, sent.topic)]).unwrap();
    let record = tokio::time::timeout(Duration::from_secs(30), consumer.recv()).await.unwrap().unwrap();
    assert_eq!((record.key(), record.payload()), (Some(&b"a key"[..]), Some(&b"\x01\x00"[..])));
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", "id-1"),
        ("ce_type", "e"),
        ("ce_source", "/tidemill/ingestion"),
        ("ce_time", "2023-11-14T22:13:20.123456Z"),
        ("content-type", "application/protobuf"),
        ("traceparent", "00-1-2-01"),
    ];
    assert_eq!(headers(&record), expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    drop(record);
    blocking(move || drop(consumer)).await;
    cluster.remove().await;
}

fn headers(record: &BorrowedMessage<'_>) -> HashMap<String, String> {
    let headers = record.headers().unwrap().iter();
    headers.map(|header| (header.key.to_owned(), String::from_utf8(header.value.unwrap().to_vec()).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_without_our_headers_arrives_under_its_place() {
    let Some(cluster) = Cluster::real() else { return };
    let log = cluster.log().await;
    let mut member = log.subscribe(&["t"], "g").await.unwrap();
    let producer: FutureProducer = cluster.config().create().unwrap();
    let topic = format!("{}t", cluster.prefix);
    let record = FutureRecord::<(), _>::to(&topic).partition(3).payload("text").timestamp(5);
    producer.send(record, PATIENCE).await.unwrap();
    let delivery = next(&mut member).await;
    assert_eq!((delivery.partition, delivery.offset), (3, 0));
    assert_eq!(&delivery.event.payload[..], b"text");
    let Event { id, key, event_type, time_micros, .. } = delivery.event;
    assert_eq!((&*id, &*key, &*event_type, time_micros), ("t/3/0", "", "", 5000));
    blocking(move || drop(producer)).await;
    cluster.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_made_as_the_table_says() {
    let Some(cluster) = Cluster::real() else { return };
    let dead_letters = topics::dead_letter(topics::TRAINING_TASKS);
    let names = [topics::TRAINING_TASKS, topics::ALIAS_EVENTS, &dead_letters, "other"];
    let events = names.map(|name| Event { topic: name.to_owned(), ..event("1", "k") });
    cluster.log().await.append(events.to_vec()).await.unwrap();
    let admin: AdminClient<DefaultClientContext> = cluster.config().create().unwrap();
    for (name, partitions, days) in [(names[0], 8, 30), (names[1], 4, 30), (names[2], 1, 7), (names[3], 8, 7)] {
        let real = format!("{}{name}", cluster.prefix);
        let specifier = ResourceSpecifier::Topic(&real);
        let found = admin.describe_configs([&specifier], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
        let retention = found.get("retention.ms").and_then(|entry| entry.value.clone());
        assert_eq!(retention, Some((days * 86_400_000_i64).to_string()), "{name}");
        let metadata = admin.inner().fetch_metadata(Some(&real), PATIENCE).unwrap();
        assert_eq!(metadata.topics()[0].partitions().len(), partitions, "{name}");
    }
    blocking(move || drop(admin)).await;
    cluster.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_there_keeps_its_shape() {
    let Some(cluster) = Cluster::real() else { return };
    let admin: AdminClient<DefaultClientContext> = cluster.config().create().unwrap();
    let name = format!("{}t", cluster.prefix);
    let topic = NewTopic::new(&name, 3, TopicReplication::Fixed(1));
    admin.create_topics([&topic], &AdminOptions::new()).await.unwrap().remove(0).unwrap();
    let log = cluster.log().await;
    let events: Vec<Event> = (0..20).map(|index| event(&index.to_string(), &index.to_string())).collect();
    log.append(events.clone()).await.unwrap();
    let mut member = log.subscribe(&["t"], "g").await.unwrap();
    for _ in &events {
        let delivery = next(&mut member).await;
        assert!(delivery.partition < 3);
        member.commit(&delivery).await.unwrap();
    }
    blocking(move || drop(admin)).await;
    cluster.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_and_a_password_let_a_client_in() {
    let Some(cluster) = Cluster::secure() else { return };
    let log = cluster.log().await;
    log.append(vec![event("1", "k")]).await.unwrap();
    let mut member = log.subscribe(&["t"], "g").await.unwrap();
    assert_eq!(until(&mut member, "1").await, ["1"]);
    let wrong = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(wrong.path(), "guess").unwrap();
    let file = cluster.url.split('&').find(|pair| pair.starts_with("sasl_password_file=")).unwrap();
    let url = cluster.url.replace(file, &format!("sasl_password_file={}", wrong.path().display()));
    let stranger = crate::connect(&url).await.unwrap();
    let text = stranger.append(vec![event("2", "k")]).await.unwrap_err().to_string();
    assert!(text.contains("unavailable") && !text.contains("sasl"), "{text}");
    cluster.remove().await;
}
