use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::budget::cost;
use crate::{Event, EventKey};

/// Most bytes of payload in the ring of one user. A reader who wants an older event asks the store.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

/// The newest events of one user, without holes: bounded in number and in bytes.
#[derive(Debug)]
pub(super) struct Ring {
    slots: VecDeque<Slot>,
    capacity: usize,
    /// What the events cost together.
    bytes: usize,
    /// The number of the newest event of each key: the event that a later one with this key replaces is
    /// found without a scan.
    newest_of_key: HashMap<EventKey, u64>,
}

#[derive(Debug)]
struct Slot {
    event: Arc<Event>,
    /// A later event has the same key: the store has archived this one, at a time that is not known
    /// here. Only the store has its state. It stays in the ring to be counted among the events with a key.
    is_replaced: bool,
}

impl Ring {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            slots: VecDeque::new(),
            capacity,
            bytes: 0,
            newest_of_key: HashMap::new(),
        }
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.newest_of_key.clear();
        self.bytes = 0;
    }

    /// The number of the oldest event, if there is one.
    pub(super) fn first_seq(&self) -> Option<u64> {
        Some(self.slots.front()?.event.id.seq)
    }

    /// Adds the event after the newest, and removes the oldest as needed. An event too large for the
    /// whole ring leaves it empty.
    pub(super) fn push_newest(&mut self, event: Arc<Event>) {
        if let Some(key) = &event.key
            && let Some(replaced) = self.newest_of_key.insert(key.clone(), event.id.seq)
            && let Some(slot) = self.index(replaced).and_then(|at| self.slots.get_mut(at))
        {
            slot.is_replaced = true;
        }
        self.bytes += cost(&event);
        self.slots.push_back(Slot {
            event,
            is_replaced: false,
        });
        while (self.slots.len() > self.capacity || self.bytes > MAX_BYTES)
            && let Some(oldest) = self.slots.pop_front()
        {
            self.bytes -= cost(&oldest.event);
            if let Some(key) = &oldest.event.key
                && !oldest.is_replaced
            {
                self.newest_of_key.remove(key);
            }
        }
    }

    /// Adds the event before the oldest, if there is room.
    pub(super) fn push_oldest(&mut self, event: Arc<Event>) {
        let bytes = self.bytes + cost(&event);
        if self.slots.len() < self.capacity && bytes <= MAX_BYTES {
            self.bytes = bytes;
            let is_replaced = match &event.key {
                Some(key) if self.newest_of_key.contains_key(key) => true,
                Some(key) => {
                    self.newest_of_key.insert(key.clone(), event.id.seq);
                    false
                }
                None => false,
            };
            self.slots.push_front(Slot { event, is_replaced });
        }
    }

    /// The event after a number, if the ring reaches back so far and has the state that the event has now.
    pub(super) fn after(&self, seq: u64) -> Option<&Arc<Event>> {
        let slot = self.slots.get(self.index(seq.checked_add(1)?)?)?;
        (!slot.is_replaced).then_some(&slot.event)
    }

    fn index(&self, seq: u64) -> Option<usize> {
        usize::try_from(seq.checked_sub(self.first_seq()?)?).ok()
    }

    /// How many of the events after one number up to another have a key, if all of them are here.
    pub(super) fn keyed_between(&self, after: u64, last: u64) -> Option<u64> {
        if after >= last {
            return Some(0);
        }
        let (first, newest) = (self.first_seq()?, self.slots.back()?.event.id.seq);
        if first > after + 1 || newest < last {
            return None;
        }
        let between = |event: &&Arc<Event>| event.id.seq > after && event.id.seq <= last;
        let events = self.slots.iter().map(|slot| &slot.event);
        let keyed = events.rev().filter(between);
        Some(keyed.filter(|event| event.key.is_some()).count() as u64)
    }

    /// The events, to change anything but their payloads.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Arc<Event>> {
        self.slots.iter_mut().map(|slot| &mut slot.event)
    }
}
