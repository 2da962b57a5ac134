//! Collecting and putting together, over a topic in memory that tells every reader what it is asked to.

mod world;

use std::collections::HashSet;
use std::time::Duration;

use tidemill_eventlog::reader::DeadLetter;
use tokio::sync::mpsc;

use super::partition::{Arrival, Note, Partition};
use super::*;
use world::{World, text};

/// Cuts at every batch, at every few, and at none.
const CUTS: [usize; 3] = [1, 100, 1 << 20];

#[tokio::test]
async fn a_version_does_not_depend_on_how_segments_were_cut() {
    let messages =
        || (0..3).map(|partition| (0..40).map(|i| text(&format!("text {}", (partition + i) % 50))).collect()).collect();
    let mut seen = HashSet::new();
    for bytes in CUTS {
        let world = World::new(messages()).await;
        world.collect(bytes).await;
        let (annotations, files) = world.assemble(&[(0, 0, 40), (1, 0, 40), (2, 5, 40)]).await;
        assert_eq!((annotations.record_count, annotations.quarantined_count), (42, 73), "{bytes}");
        seen.insert((annotations.merkle_root, files));
    }
    assert_eq!(seen.len(), 1, "root and files are the same, however it was cut: {seen:?}");
}

#[tokio::test]
async fn of_equal_records_the_one_with_the_lowest_partition_and_offset_stays() {
    let world = World::new(vec![vec![text("b"), text("a"), text("a")], vec![text("a"), text("b"), text("c")]]).await;
    world.collect(1).await;
    world.assemble(&[(0, 0, 3), (1, 0, 3)]).await;
    let kept: Vec<_> = world.records().into_iter().map(|record| (record.text, record.origin)).collect();
    let expected = [("b", "docs:0:0"), ("a", "docs:0:1"), ("c", "docs:1:2")];
    assert_eq!(kept, expected.map(|(text, origin)| (text.to_owned(), origin.to_owned())));
    // Of a range that begins later, another one is the first.
    world.assemble(&[(0, 2, 3), (1, 0, 3)]).await;
    let kept: Vec<_> = world.records().into_iter().map(|record| record.origin).collect();
    assert_eq!(kept, ["docs:0:2", "docs:1:1", "docs:1:2"]);
}

#[tokio::test]
async fn what_cannot_be_read_is_buried_before_the_cursor_moves() {
    let tombstone = tidemill_eventlog::reader::Message::default();
    let world =
        World::new(vec![vec![text("a"), text("\u{0}"), tombstone, text("x".repeat(300).as_str()), text("b")]]).await;
    world.topic.refuse_burials(true);
    let collecting = world.partition(0, 1 << 20, Duration::ZERO).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(world.cursor(0).await.next_offset, 0, "the dead letters are not durable yet");
    world.topic.refuse_burials(false);
    world.until_collected().await;
    collecting.abort();
    let dead: Vec<DeadLetter> = world.topic.dead();
    let told: Vec<_> =
        dead.iter().map(|letter| (letter.message.offset, letter.cause.split(':').next().unwrap())).collect();
    assert_eq!(told, [(1, "BINARY"), (2, "TOMBSTONE"), (3, "RECORD_TOO_LARGE")]);
    assert_eq!(dead[0].message.value.as_deref(), Some(&b"\0"[..]));
    assert_eq!(dead[1].message.value, None);
    let ids = dead.iter().map(|letter| letter.headers("docs")[0].1.clone()).collect::<Vec<_>>();
    assert_eq!(ids, ["docs/0/1", "docs/0/2", "docs/0/3"]);
    let (annotations, _) = world.assemble(&[(0, 0, 5)]).await;
    assert_eq!((annotations.record_count, annotations.quarantined_count), (2, 3));
}

#[tokio::test]
async fn a_member_that_lost_its_partition_drops_its_work() {
    let world = World::new(vec![(0..10).map(|i| text(&i.to_string())).collect()]).await;
    let stale = world.cursor(0).await;
    world.collect(30).await;
    let segments = world.segments(0).await;

    let (tell, mut notes) = mpsc::unbounded_channel();
    let (arrivals, arriving) = mpsc::channel(1);
    arrivals.send(Arrival::Messages((0..7).map(|i| world.topic.message(0, i)).collect())).await.unwrap();
    drop(arrivals);
    let zombie = Partition { cut: Cut { bytes: 1, age: Duration::ZERO }, ..world.worker(0) };
    zombie.run(stale, arriving, tell).await;
    assert_eq!(notes.recv().await, Some(Note::Lost(0)));
    assert_eq!(notes.recv().await, None);
    assert_eq!(world.segments(0).await, segments, "nothing was added");
}

#[tokio::test]
async fn members_that_all_believe_to_own_everything_collect_each_message_once() {
    let world = World::new((0..3).map(|p| (0..60).map(|i| text(&format!("{p} {i}"))).collect()).collect()).await;
    let stop = CancellationToken::new();
    let members: Vec<_> = (0..3).map(|_| tokio::spawn(world.follower(20, stop.clone()).run())).collect();
    world.until_collected().await;
    stop.cancel();
    for member in members {
        member.await.unwrap().unwrap();
    }
    for partition in 0..3 {
        let segments = world.segments(partition).await;
        let ends: Vec<_> = segments.iter().map(|segment| segment.end_offset).collect();
        let begins: Vec<_> = segments.iter().map(|segment| segment.begin_offset).collect();
        assert_eq!(begins[1..], ends[..ends.len() - 1], "segments follow each other");
        assert_eq!((begins[0], *ends.last().unwrap()), (0, 60));
    }
    let (annotations, _) = world.assemble(&[(0, 0, 60), (1, 0, 60), (2, 0, 60)]).await;
    assert_eq!((annotations.record_count, annotations.quarantined_count), (180, 0));
}

#[tokio::test]
async fn members_killed_at_random_moments_lose_and_double_nothing() {
    let world = World::new((0..2).map(|p| (0..400).map(|i| text(&format!("{p} {i}"))).collect()).collect()).await;
    for kill in 0..40u64 {
        let stop = CancellationToken::new();
        let member = tokio::spawn(world.follower(40, stop.clone()).run());
        tokio::time::sleep(Duration::from_millis(kill * 7 % 31)).await;
        // The work is dropped wherever it waits: in the middle of dead letters, blobs or a transaction.
        stop.cancel();
        member.await.unwrap().unwrap();
    }
    let stop = CancellationToken::new();
    let last = tokio::spawn(world.follower(40, stop.clone()).run());
    world.until_collected().await;
    stop.cancel();
    last.await.unwrap().unwrap();
    let (annotations, _) = world.assemble(&[(0, 0, 400), (1, 0, 400)]).await;
    assert_eq!((annotations.record_count, annotations.quarantined_count), (800, 0));
}

#[tokio::test]
async fn offsets_without_a_message_are_passed_over() {
    let world = World::new(vec![vec![text("a"), text("b")]]).await;
    let (tell, mut notes) = mpsc::unbounded_channel();
    let (arrivals, arriving) = mpsc::channel(3);
    arrivals.send(Arrival::Messages(vec![world.topic.message(0, 0)])).await.unwrap();
    arrivals.send(Arrival::Passed(3)).await.unwrap();
    // One that comes late says nothing new.
    arrivals.send(Arrival::Passed(2)).await.unwrap();
    drop(arrivals);
    let cursor = world.cursor(0).await;
    let worker = Partition { cut: Cut { bytes: 1 << 20, age: Duration::ZERO }, ..world.worker(0) };
    worker.run(cursor, arriving, tell).await;
    assert_eq!([notes.recv().await, notes.recv().await], [Some(Note::Moved(0, 1)), Some(Note::Moved(0, 3))]);
    assert_eq!(notes.recv().await, None);
    let (annotations, _) = world.assemble(&[(0, 0, 3)]).await;
    assert_eq!(annotations.record_count, 1);
}

#[tokio::test]
async fn a_segment_that_is_missing_is_an_error_not_a_smaller_dataset() {
    let world = World::new(vec![(0..9).map(|i| text(&i.to_string())).collect()]).await;
    world.collect(1).await;
    let segment = world.segments(0).await.remove(1);
    world.resources.commit(world::delete(&segment)).await.unwrap();
    let error = world.try_assemble(&[(0, 0, 9)]).await.unwrap_err();
    assert!(error.to_string().contains("from 3 on of partition 0"), "{error}");
}
