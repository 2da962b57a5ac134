//! Who is in which group, and what is in flight: the part of the log that lives in memory.
//!
//! A partition hands out one event at a time, to whichever member of the group asks first. So members share all partitions evenly
//! without an assignment to rebalance, order per key holds, and when a member leaves, its events are simply free again.

use std::collections::HashMap;

use tokio::time::Instant;

use super::PARTITIONS;
use super::table::Contents;
use crate::{Error, Result};

/// A place in the log.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Slot {
    pub(super) topic: String,
    pub(super) partition: u32,
    pub(super) offset: i64,
}

/// Offset by partition.
pub(super) type Offsets = [i64; PARTITIONS as usize];

/// What there is for a member.
pub(super) enum Next {
    /// An event to read, and how often the group received it.
    Claimed(Slot, u32),
    /// Nothing before this time, unless there is news.
    At(Instant),
    /// Nothing, unless there is news.
    Nothing,
}

pub(super) struct Groups {
    /// By topic: the offset that the next event will get.
    ends: HashMap<String, Offsets>,
    /// By group and topic.
    cursors: HashMap<String, HashMap<String, [Cursor; PARTITIONS as usize]>>,
    members: u64,
}

/// How far a group is in a partition.
#[derive(Clone, Copy, Default)]
struct Cursor {
    /// The first offset that is not committed.
    offset: i64,
    /// The member that has that event now.
    holder: Option<u64>,
    /// How often the group received it.
    attempts: u32,
    /// Not to be delivered before.
    not_before: Option<Instant>,
}

impl Groups {
    /// Begins with what the file holds.
    pub(super) fn new((ends, committed): Contents) -> Groups {
        let mut cursors: HashMap<String, HashMap<_, _>> = HashMap::new();
        for ((group, topic), offsets) in committed {
            let partitions = offsets.map(|offset| Cursor { offset, ..Cursor::default() });
            cursors.entry(group).or_default().insert(topic, partitions);
        }
        Groups { ends, cursors, members: 0 }
    }

    pub(super) fn new_member(&mut self) -> u64 {
        self.members += 1;
        self.members
    }

    pub(super) fn appended(&mut self, ends: HashMap<(String, u32), i64>) {
        for ((topic, partition), end) in ends {
            // Two appends may come here in another order than they went to the file.
            let known = &mut self.ends.entry(topic).or_default()[partition as usize];
            *known = end.max(*known);
        }
    }

    /// Looks for an event from `turn` on, round all partitions of all topics, and holds it for the member.
    pub(super) fn claim(&mut self, group: &str, topics: &[String], turn: &mut usize, member: u64) -> Next {
        let places = topics.len() * PARTITIONS as usize;
        let now = Instant::now();
        let mut soonest: Option<Instant> = None;
        for step in 0..places {
            let place = (*turn + step) % places;
            let (topic, partition) = (&topics[place / PARTITIONS as usize], place as u32 % PARTITIONS);
            let end = self.ends.get(topic).map_or(0, |ends| ends[partition as usize]);
            let cursor = self.cursor(group, topic, partition);
            if cursor.holder.is_some() || cursor.offset >= end {
                continue;
            }
            if let Some(time) = cursor.not_before.filter(|time| *time > now) {
                soonest = Some(soonest.map_or(time, |soonest| soonest.min(time)));
                continue;
            }
            cursor.holder = Some(member);
            cursor.attempts += 1;
            cursor.not_before = None;
            *turn = place + 1;
            return Next::Claimed(Slot { topic: topic.clone(), partition, offset: cursor.offset }, cursor.attempts);
        }
        soonest.map_or(Next::Nothing, Next::At)
    }

    /// Undoes a claim that did not become a delivery.
    pub(super) fn unclaim(&mut self, group: &str, slot: &Slot, member: u64) {
        let cursor = self.cursor(group, &slot.topic, slot.partition);
        if cursor.offset == slot.offset && cursor.holder == Some(member) {
            cursor.holder = None;
            cursor.attempts -= 1;
        }
    }

    /// Whether the member has this event; false where it is committed already.
    pub(super) fn is_held(&mut self, group: &str, slot: &Slot, member: u64) -> Result<bool> {
        let cursor = self.cursor(group, &slot.topic, slot.partition);
        if slot.offset < cursor.offset {
            return Ok(false);
        }
        if slot.offset == cursor.offset && cursor.holder == Some(member) {
            return Ok(true);
        }
        Err(Error::NotHeld { topic: slot.topic.clone(), offset: slot.offset })
    }

    /// Goes on to the next event. The member may have left while its commit was on the way to the disk, and another may have
    /// received the event since: then that one's commit finds nothing left to do.
    pub(super) fn commit(&mut self, group: &str, slot: &Slot) {
        let cursor = self.cursor(group, &slot.topic, slot.partition);
        if cursor.offset == slot.offset {
            *cursor = Cursor { offset: slot.offset + 1, ..Cursor::default() };
        }
    }

    /// Frees an event, to be received again from a time on.
    pub(super) fn release(&mut self, group: &str, slot: &Slot, not_before: Instant) {
        let cursor = self.cursor(group, &slot.topic, slot.partition);
        cursor.holder = None;
        cursor.not_before = Some(not_before);
    }

    /// Frees all that a member has.
    pub(super) fn leave(&mut self, group: &str, member: u64) {
        for cursor in self.cursors.entry(group.to_owned()).or_default().values_mut().flatten() {
            if cursor.holder == Some(member) {
                cursor.holder = None;
            }
        }
    }

    fn cursor(&mut self, group: &str, topic: &str, partition: u32) -> &mut Cursor {
        if !self.cursors.get(group).is_some_and(|topics| topics.contains_key(topic)) {
            self.cursors.entry(group.to_owned()).or_default().insert(topic.to_owned(), Default::default());
        }
        let topics = self.cursors.get_mut(group).expect("it was inserted above");
        &mut topics.get_mut(topic).expect("it was inserted above")[partition as usize]
    }
}
