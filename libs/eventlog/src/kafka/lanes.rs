//! What a member has fetched: one lane a partition, of which it hands out the first event only, until that is committed.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Mutex;

use tokio::time::Instant;

use super::lock;
use crate::{Delivery, Error, Event, Result};

/// A partition of a topic, by the name that we have for the topic.
pub(super) type Place = (String, i32);

/// How often each group received the event that it is at: (offset, attempts). Shared by all members in this process.
#[derive(Default)]
pub(super) struct Attempts(Mutex<HashMap<(String, Place), (i64, u32)>>);

impl Attempts {
    fn count(&self, group: &str, place: &Place, offset: i64) -> u32 {
        let mut attempts = lock(&self.0);
        let (at, count) = attempts.entry((group.to_owned(), place.clone())).or_insert((offset, 0));
        *count = if *at == offset { *count + 1 } else { 1 };
        *at = offset;
        *count
    }
}

/// What there is for whoever asks.
pub(super) enum Next {
    Delivery(Box<Delivery>),
    /// Nothing before this time, unless there is news.
    At(Instant),
    /// Nothing, unless there is news.
    Nothing,
}

#[derive(Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<Place, Lane>,
    /// Where the last delivery came from: the next comes from behind it, so that every partition gets its turn.
    turn: Option<Place>,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<(i64, Event)>,
    /// The first of `waiting` is with the caller.
    held: bool,
    /// The first is not to be handed out before.
    not_before: Option<Instant>,
    /// The first offset that is not committed, as far as this member knows.
    committed: i64,
    /// The partition goes to another member: nothing more is handed out.
    leaving: bool,
}

impl Lanes {
    pub(super) fn open(&mut self, place: Place) {
        self.lanes.insert(place, Lane::default());
    }

    pub(super) fn close(&mut self, place: &Place) {
        self.lanes.remove(place);
    }

    pub(super) fn leave(&mut self, place: &Place) {
        if let Some(lane) = self.lanes.get_mut(place) {
            lane.leaving = true;
        }
    }

    pub(super) fn is_held_at(&self, place: &Place) -> bool {
        self.lanes.get(place).is_some_and(|lane| lane.held)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    pub(super) fn places(&self) -> impl Iterator<Item = &Place> {
        self.lanes.keys()
    }

    /// Adds what was fetched; how many wait in that partition now.
    pub(super) fn fetched(&mut self, place: &Place, offset: i64, event: Event) -> usize {
        let Some(lane) = self.lanes.get_mut(place) else { return 0 };
        // After a pause the client may fetch again what it had given us.
        if lane.waiting.back().is_none_or(|(last, _)| *last < offset) && offset >= lane.committed {
            lane.waiting.push_back((offset, event));
        }
        lane.waiting.len()
    }

    /// The first offset that is not committed, as far as this member knows.
    pub(super) fn uncommitted(&self, place: &Place) -> Option<i64> {
        let lane = self.lanes.get(place)?;
        lane.waiting.front().map(|(first, _)| *first).or((lane.committed > 0).then_some(lane.committed))
    }

    pub(super) fn waiting(&self, place: &Place) -> usize {
        self.lanes.get(place).map_or(0, |lane| lane.waiting.len())
    }

    /// Takes the first event of the next lane that has one to give.
    pub(super) fn claim(&mut self, group: &str, attempts: &Attempts) -> Next {
        let now = Instant::now();
        let mut soonest: Option<Instant> = None;
        let start = self.turn.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let end = self.turn.clone().map_or(Bound::Excluded((String::new(), 0)), Bound::Included);
        let behind = self.lanes.range((start, Bound::Unbounded)).map(|(place, _)| place.clone());
        let before = self.lanes.range((Bound::Unbounded, end)).map(|(place, _)| place.clone());
        for place in behind.chain(before).collect::<Vec<_>>() {
            let Some(lane) = self.lanes.get_mut(&place).filter(|lane| !lane.held && !lane.leaving) else { continue };
            let Some((offset, event)) = lane.waiting.front() else { continue };
            if let Some(time) = lane.not_before.filter(|time| *time > now) {
                soonest = Some(soonest.map_or(time, |soonest| soonest.min(time)));
                continue;
            }
            lane.held = true;
            lane.not_before = None;
            let attempt = attempts.count(group, &place, *offset);
            let delivery = Delivery { event: event.clone(), partition: place.1 as u32, offset: *offset, attempt };
            self.turn = Some(place);
            return Next::Delivery(Box::new(delivery));
        }
        soonest.map_or(Next::Nothing, Next::At)
    }

    /// Whether the caller has this event; false where it is committed already.
    pub(super) fn is_held(&self, place: &Place, offset: i64) -> Result<bool> {
        let lane = self.lanes.get(place);
        if lane.is_some_and(|lane| offset < lane.committed) {
            return Ok(false);
        }
        if lane.is_some_and(|lane| lane.held && lane.waiting.front().is_some_and(|(first, _)| *first == offset)) {
            return Ok(true);
        }
        Err(Error::NotHeld { topic: place.0.clone(), offset })
    }

    /// Goes on to the next event.
    pub(super) fn committed(&mut self, place: &Place, offset: i64) {
        if let Some(lane) = self.lanes.get_mut(place) {
            lane.waiting.pop_front();
            lane.held = false;
            lane.committed = offset + 1;
        }
    }

    /// The event is to be received again, from a time on.
    pub(super) fn release(&mut self, place: &Place, not_before: Instant) {
        if let Some(lane) = self.lanes.get_mut(place) {
            lane.held = false;
            lane.not_before = Some(not_before);
        }
    }
}
