use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use crate::Event;
use crate::budget::cost;

/// Most bytes of payload in the ring of one user. A reader who wants an older event asks the store.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

/// The newest events of one user, without holes: bounded in number and in bytes.
#[derive(Debug)]
pub(super) struct Ring {
    events: VecDeque<Arc<Event>>,
    capacity: usize,
    /// What the events cost together.
    bytes: usize,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            events: VecDeque::new(),
            capacity,
            bytes: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.events.clear();
        self.bytes = 0;
    }

    /// The number of the oldest event, if there is one.
    pub(super) fn first_seq(&self) -> Option<u64> {
        Some(self.events.front()?.id.seq)
    }

    /// Adds the event after the newest, and removes the oldest as needed. An event too large for the
    /// whole ring leaves it empty.
    pub(super) fn push_newest(&mut self, event: Arc<Event>) {
        self.bytes += cost(&event);
        self.events.push_back(event);
        while (self.events.len() > self.capacity || self.bytes > MAX_BYTES)
            && let Some(oldest) = self.events.pop_front()
        {
            self.bytes -= cost(&oldest);
        }
    }

    /// Adds the event before the oldest, if there is room.
    pub(super) fn push_oldest(&mut self, event: Arc<Event>) {
        let bytes = self.bytes + cost(&event);
        if self.events.len() < self.capacity && bytes <= MAX_BYTES {
            self.bytes = bytes;
            self.events.push_front(event);
        }
    }

    /// The event after a number, if the ring reaches back so far.
    pub(super) fn after(&self, seq: u64) -> Option<&Arc<Event>> {
        let next = seq.checked_add(1)?;
        let index = next.checked_sub(self.first_seq()?)?;
        self.events.get(usize::try_from(index).ok()?)
    }

    /// How many of the events after one number up to another have a key, if all of them are here.
    pub(super) fn keyed_between(&self, after: u64, last: u64) -> Option<u64> {
        if after >= last {
            return Some(0);
        }
        let (first, newest) = (self.first_seq()?, self.events.back()?.id.seq);
        if first > after + 1 || newest < last {
            return None;
        }
        let between = |event: &&Arc<Event>| event.id.seq > after && event.id.seq <= last;
        let keyed = self.events.iter().rev().filter(between);
        Some(keyed.filter(|event| event.key.is_some()).count() as u64)
    }

    /// The numbers of the events that a later one with their key has replaced.
    pub(super) fn replaced(&self) -> HashSet<u64> {
        let mut keys = HashSet::new();
        let newest_first = self.events.iter().rev();
        let replaced = newest_first.filter(|event| {
            let key = event.key.as_ref();
            key.is_some_and(|key| !keys.insert(key))
        });
        replaced.map(|event| event.id.seq).collect()
    }

    /// The events, to change anything but their payloads.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Arc<Event>> {
        self.events.iter_mut()
    }
}
