//! Against a real broker, where TIDEMILL_TEST_KAFKA names one.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use super::super::{DeadLetter, Message, News, Reader, open};

const PARTITIONS: i32 = 3;
const MESSAGES: i64 = 20;
const PATIENCE: Duration = Duration::from_secs(30);

/// A topic of its own; none, with a word about it, where there is no broker.
async fn topic(name: &str) -> Option<(ClientConfig, String)> {
    let Ok(brokers) = std::env::var("TIDEMILL_TEST_KAFKA") else {
        println!("skipped: topics of others on Kafka: TIDEMILL_TEST_KAFKA is not set; run make deps-up");
        return None;
    };
    let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let topic = format!("{name}-{nanos}");
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &brokers);
    let admin: AdminClient<DefaultClientContext> = config.create().unwrap();
    let new = NewTopic::new(&topic, PARTITIONS, TopicReplication::Fixed(1));
    admin.create_topics(&[new], &AdminOptions::new().operation_timeout(Some(PATIENCE))).await.unwrap()[0]
        .as_ref()
        .unwrap();
    Some((config, format!("kafka://{brokers}/{topic}")))
}

fn name(uri: &str) -> &str {
    uri.rsplit('/').next().unwrap()
}

/// The same messages in every partition.
fn fill(config: &ClientConfig, uri: &str) {
    let producer: BaseProducer = config.create().unwrap();
    for i in 0..MESSAGES {
        for partition in 0..PARTITIONS {
            let value = format!("{partition} {i}");
            producer.send(BaseRecord::<str, str>::to(name(uri)).partition(partition).payload(&value)).unwrap();
        }
    }
    producer.flush(PATIENCE).unwrap();
}

/// Reads until `done`, and gives every message's partition and offset. Assigned partitions begin at `from`.
fn read(reader: &mut dyn Reader, from: i64, mut done: impl FnMut(&News, usize) -> bool) -> Vec<(i32, i64)> {
    let (mut seen, until) = (Vec::new(), Instant::now() + PATIENCE);
    loop {
        assert!(Instant::now() < until, "waited too long; so far {seen:?}");
        let news = reader.next(Duration::from_millis(100)).unwrap();
        match &news {
            News::Assigned(partitions) => {
                reader.start(&partitions.iter().map(|partition| (*partition, from)).collect::<Vec<_>>()).unwrap();
            }
            News::Messages(batches) => {
                let places =
                    batches.iter().flat_map(|(p, messages)| messages.iter().map(|message| (*p, message.offset)));
                seen.extend(places);
            }
            News::Revoked(_) | News::Passed(_) => {}
        }
        if done(&news, seen.len()) {
            return seen;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_reads_from_where_it_says_and_again_from_elsewhere() {
    let Some((config, uri)) = topic("reader").await else { return };
    fill(&config, &uri);
    let topic = open(&uri, "group").unwrap();
    let extents = topic.extents().await.unwrap();
    assert_eq!(
        extents.iter().map(|e| (e.partition, e.begin, e.end)).collect::<Vec<_>>(),
        [(0, 0, 20), (1, 0, 20), (2, 0, 20)]
    );
    let mut reader = topic.join().unwrap();
    let seen = read(&mut *reader, 15, |_, count| count == 15);
    for partition in 0..PARTITIONS {
        let offsets: Vec<_> = seen.iter().filter(|(p, _)| *p == partition).map(|(_, offset)| *offset).collect();
        assert_eq!(offsets, [15, 16, 17, 18, 19]);
    }
    reader.commit(&[(0, 20), (1, 20), (2, 20)]).unwrap();
    reader.start(&[(1, 18)]).unwrap();
    assert_eq!(read(&mut *reader, 0, |_, count| count == 2), [(1, 18), (1, 19)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn members_share_partitions_and_inherit_those_of_one_that_leaves() {
    let Some((config, uri)) = topic("shared").await else { return };
    fill(&config, &uri);
    let mut one = open(&uri, "group").unwrap().join().unwrap();
    read(&mut *one, 0, |_, count| count == 60);
    let mut two = open(&uri, "group").unwrap().join().unwrap();
    let mut revoked = Vec::new();
    let mut others = Vec::new();
    let until = Instant::now() + PATIENCE;
    while others.len() < 20 {
        assert!(Instant::now() < until, "the second member got nothing: {revoked:?}");
        if let News::Revoked(partitions) = one.next(Duration::from_millis(50)).unwrap() {
            revoked.extend(partitions);
        }
        others.extend(read(&mut *two, 0, |_, _| true));
    }
    assert_eq!(revoked.len(), 1, "one of three is given away, the others go on");
    assert!(others.iter().all(|(partition, _)| *partition == revoked[0]));
    drop(two);
    let back = read(&mut *one, 0, |_, count| count == 20);
    assert!(back.iter().all(|(partition, _)| *partition == revoked[0]));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_keep_their_bytes_and_say_where_they_are_from() {
    let Some((_, uri)) = topic("dead").await else { return };
    let headers = vec![("content-type".to_owned(), Some(b"x/y".to_vec())), ("none".to_owned(), None)];
    let message = Message { offset: 7, key: Some(vec![0xFF]), value: Some(vec![0, 0xFF]), headers };
    let letter = DeadLetter { partition: 2, message: message.clone(), cause: "BINARY: a zero byte".to_owned() };
    let topic = open(&uri, "group").unwrap();
    topic.bury(vec![letter.clone()]).await.unwrap();
    topic.bury(vec![letter.clone()]).await.unwrap();
    let dead = open(&format!("{uri}.dlq"), "group").unwrap();
    assert_eq!(dead.extents().await.unwrap().iter().map(|extent| extent.end).collect::<Vec<_>>(), [0, 0, 2]);
    let mut reader = dead.join().unwrap();
    let mut found = Vec::new();
    read(&mut *reader, 0, |news, count| {
        if let News::Messages(batches) = news {
            found.extend(batches.iter().flat_map(|(_, messages)| messages.clone()));
        }
        count == 2
    });
    let added = letter.headers(name(&uri)).map(|(key, value)| (key.to_owned(), Some(value.into_bytes())));
    assert_eq!((&found[0].key, &found[0].value), (&message.key, &message.value));
    assert_eq!(found[0].headers, [&message.headers[..], &added[..]].concat());
    assert_eq!(found[0].headers, found[1].headers, "a repeat has the same id");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_transactions_leave_is_passed() {
    let Some((config, uri)) = topic("transactions").await else { return };
    let producer: BaseProducer = config.clone().set("transactional.id", name(&uri)).create().unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    for commit in [true, false] {
        producer.begin_transaction().unwrap();
        producer.send(BaseRecord::<str, str>::to(name(&uri)).partition(1).payload("x")).unwrap();
        producer.flush(PATIENCE).unwrap();
        if commit { producer.commit_transaction(PATIENCE) } else { producer.abort_transaction(PATIENCE) }.unwrap();
    }
    let topic = open(&uri, "group").unwrap();
    assert_eq!(topic.extents().await.unwrap()[1].end, 4, "a message and a marker, twice");
    let mut reader = topic.join().unwrap();
    let mut passed = Vec::new();
    let seen = read(&mut *reader, 0, |news, _| {
        if let News::Passed(partitions) = news {
            passed.extend(partitions.clone());
        }
        passed.contains(&(1, 4))
    });
    assert_eq!(seen, [(1, 0)], "what was aborted is no message");
}
