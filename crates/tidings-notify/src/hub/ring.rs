use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::budget::cost;
use crate::{Event, EventKey};

/// Most bytes of payload in the ring of one user. A reader who wants an older event asks the store.
pub(super) const MAX_BYTES: usize = 1024 * 1024;

/// The newest events of one user, without holes: bounded in number and in bytes.
#[derive(Debug)]
pub(super) struct Ring {
    capacity: usize,
    /// Nothing before the first event, for which most users who are connected wait for long.
    kept: Option<Box<Kept>>,
}

#[derive(Debug, Default)]
struct Kept {
    slots: VecDeque<Slot>,
    /// What the events cost together.
    bytes: usize,
    /// The number of the newest event of each key: the event that a later one with this key replaces is
    /// found without a scan.
    newest_of_key: BTreeMap<EventKey, u64>,
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
            capacity,
            kept: None,
        }
    }

    pub(super) fn clear(&mut self) {
        self.kept = None;
    }

    /// The number of the oldest event, if there is one.
    pub(super) fn first_seq(&self) -> Option<u64> {
        self.kept.as_ref()?.first_seq()
    }

    /// Adds the event after the newest, and removes the oldest as needed. An event too large for the
    /// whole ring leaves it empty.
    pub(super) fn push_newest(&mut self, event: Arc<Event>) {
        let kept = self.kept.get_or_insert_default();
        if let Some(key) = &event.key
            && let Some(replaced) = kept.newest_of_key.insert(key.clone(), event.id.seq)
            && let Some(slot) = kept.index(replaced).and_then(|at| kept.slots.get_mut(at))
        {
            slot.is_replaced = true;
        }
        kept.bytes += cost(&event);
        kept.slots.push_back(Slot {
            event,
            is_replaced: false,
        });
        while (kept.slots.len() > self.capacity || kept.bytes > MAX_BYTES)
            && let Some(oldest) = kept.slots.pop_front()
        {
            kept.bytes -= cost(&oldest.event);
            if let Some(key) = &oldest.event.key
                && !oldest.is_replaced
            {
                kept.newest_of_key.remove(key);
            }
        }
    }

    /// Adds the event before the oldest, if there is room.
    pub(super) fn push_oldest(&mut self, event: Arc<Event>) {
        let kept = self.kept.get_or_insert_default();
        let bytes = kept.bytes + cost(&event);
        if kept.slots.len() < self.capacity && bytes <= MAX_BYTES {
            kept.bytes = bytes;
            let is_replaced = match &event.key {
                Some(key) if kept.newest_of_key.contains_key(key) => true,
                Some(key) => {
                    kept.newest_of_key.insert(key.clone(), event.id.seq);
                    false
                }
                None => false,
            };
            kept.slots.push_front(Slot { event, is_replaced });
        }
    }

    /// The event after a number, if the ring reaches back so far and has the state that the event has now.
    pub(super) fn after(&self, seq: u64) -> Option<&Arc<Event>> {
        let kept = self.kept.as_ref()?;
        let slot = kept.slots.get(kept.index(seq.checked_add(1)?)?)?;
        (!slot.is_replaced).then_some(&slot.event)
    }

    /// How many of the events after one number up to another have a key, if all of them are here.
    pub(super) fn keyed_between(&self, after: u64, last: u64) -> Option<u64> {
        if after >= last {
            return Some(0);
        }
        let slots = &self.kept.as_ref()?.slots;
        let (first, newest) = (self.first_seq()?, slots.back()?.event.id.seq);
        if first > after + 1 || newest < last {
            return None;
        }
        let between = |event: &&Arc<Event>| event.id.seq > after && event.id.seq <= last;
        let events = slots.iter().map(|slot| &slot.event);
        let keyed = events.rev().filter(between);
        Some(keyed.filter(|event| event.key.is_some()).count() as u64)
    }

    /// The events, to change anything but their payloads.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Arc<Event>> {
        let slots = self.kept.iter_mut().flat_map(|kept| &mut kept.slots);
        slots.map(|slot| &mut slot.event)
    }
}

impl Kept {
    fn first_seq(&self) -> Option<u64> {
        Some(self.slots.front()?.event.id.seq)
    }

    fn index(&self, seq: u64) -> Option<usize> {
        usize::try_from(seq.checked_sub(self.first_seq()?)?).ok()
    }
}
