//! The log of one user.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::budget::{Budget, cost};
use crate::read::{Marked, ReadChange, ReadScope, ReadUpdate};
use crate::{
    Draft, Epoch, Event, EventId, Head, InboxPage, InboxQuery, MAX_INBOX_PAGE_BYTES, StoreError,
};

#[derive(Debug)]
pub(super) struct Log {
    pub(super) epoch: Epoch,
    pub(super) events: VecDeque<Kept>,
    /// The number of `events`' first element, or the next number when it is empty.
    pub(super) first_seq: u64,
    pub(super) delivered_seq: u64,
    pub(super) unread: u64,
    pub(super) read_revision: u64,
    /// The mark of the log's newest change.
    pub(super) changed: u64,
}

/// An event with two times that never fall along the log: one to find it by, one to age by.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) event: Event,
    /// The greatest timestamp so far.
    pub(super) latest_at: Timestamp,
    /// The time when it was stored.
    pub(super) stored_at: Timestamp,
}

impl Log {
    pub(super) fn new() -> Self {
        Self {
            epoch: Epoch::random(),
            events: VecDeque::new(),
            first_seq: 1,
            delivered_seq: 0,
            unread: 0,
            read_revision: 0,
            changed: 0,
        }
    }

    pub(super) fn top_seq(&self) -> u64 {
        self.first_seq + self.events.len() as u64 - 1
    }

    pub(super) fn head(&self) -> Head {
        Head {
            epoch: self.epoch,
            first_seq: self.first_seq,
            top_seq: self.top_seq(),
            delivered_seq: self.delivered_seq,
            unread: self.unread,
            read_revision: self.read_revision,
        }
    }

    pub(super) fn append(&mut self, draft: Draft, stored_at: Timestamp) -> Event {
        let id = EventId::new(self.epoch, self.top_seq() + 1);
        let event = Event::from_draft(draft, id);
        let last = self.events.back();
        self.events.push_back(Kept {
            latest_at: last.map_or(event.timestamp, |last| last.latest_at.max(event.timestamp)),
            stored_at: last.map_or(stored_at, |last| last.stored_at.max(stored_at)),
            event: event.clone(),
        });
        self.unread += 1;
        event
    }

    /// Removes the oldest event, and returns whether it was unread.
    pub(super) fn drop_first(&mut self) -> bool {
        let Some(kept) = self.events.pop_front() else {
            return false;
        };
        self.first_seq += 1;
        kept.event.read_at.is_none()
    }

    pub(super) fn count_off(&mut self, unread: u64) {
        if unread > 0 {
            self.unread -= unread;
            self.read_revision += 1;
        }
    }

    /// The index of an event in `events`, if this log has it.
    pub(super) fn index(&self, id: EventId) -> Option<usize> {
        if id.epoch != self.epoch {
            return None;
        }
        let index = usize::try_from(id.seq.checked_sub(self.first_seq)?).ok()?;
        (index < self.events.len()).then_some(index)
    }

    pub(super) fn mark_read(&mut self, scope: &ReadScope, at: Timestamp) -> ReadUpdate {
        let (marked, changed) = match scope {
            ReadScope::Ids(ids) => self.mark_ids(ids, at),
            ReadScope::UpTo(id) => self.mark_up_to(*id, at),
            ReadScope::All => self.mark_up_to(self.head().top(), at),
        };
        self.count_off(changed);
        let head = self.head();
        ReadUpdate {
            changed,
            revision: head.read_revision,
            change: ReadChange {
                marked,
                unread: head.unread,
                as_of: head.top(),
            },
        }
    }

    fn mark_ids(&mut self, ids: &[EventId], at: Timestamp) -> (Marked, u64) {
        let mut marked = Vec::new();
        for id in ids {
            if let Some(index) = self.index(*id)
                && let Some(kept) = self.events.get_mut(index)
                && kept.event.read_at.is_none()
            {
                kept.event.read_at = Some(at);
                marked.push(*id);
            }
        }
        let changed = marked.len() as u64;
        (Marked::Ids(marked.into()), changed)
    }

    fn mark_up_to(&mut self, id: EventId, at: Timestamp) -> (Marked, u64) {
        if id.epoch != self.epoch {
            return (Marked::Ids([].into()), 0);
        }
        let last = id.seq.min(self.top_seq());
        let mut changed = 0;
        for kept in &mut self.events {
            if kept.event.id.seq > last {
                break;
            }
            if kept.event.read_at.is_none() {
                kept.event.read_at = Some(at);
                changed += 1;
            }
        }
        (Marked::UpTo(EventId::new(self.epoch, last)), changed)
    }

    pub(super) fn inbox(&self, query: &InboxQuery) -> Result<InboxPage, StoreError> {
        let newest = match query.cursor() {
            Some(cursor) if cursor.epoch != self.epoch => return Err(StoreError::ForeignCursor),
            Some(cursor) => cursor.seq.saturating_sub(1),
            None => self.top_seq(),
        };
        let listed = self
            .events
            .iter()
            .rev()
            .map(|kept| &kept.event)
            .filter(|event| {
                event.id.seq <= newest
                    && (!query.is_unread_only() || event.read_at.is_none())
                    && query
                        .event_type()
                        .is_none_or(|only| event.event_type == *only)
            });
        let mut budget = Budget::new(MAX_INBOX_PAGE_BYTES);
        let mut events: Vec<Event> = Vec::new();
        let mut next = None;
        for event in listed {
            if events.len() == query.limit() || !budget.admit(cost(event)) {
                next = events.last().map(|event| event.id);
                break;
            }
            events.push(event.clone());
        }
        Ok(InboxPage {
            events,
            next,
            unread: self.unread,
            cursor: self.head().top(),
        })
    }
}
