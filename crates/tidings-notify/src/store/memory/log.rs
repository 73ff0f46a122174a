//! The log of one user.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;

use crate::budget::{Budget, cost};
use crate::change::{Changed, InboxAction, InboxChange, InboxUpdate};
use crate::{
    Draft, Epoch, Event, EventId, EventKey, Head, InboxPage, InboxQuery, MAX_INBOX_PAGE_BYTES,
    StoreError,
};

#[derive(Debug)]
pub(super) struct Log {
    pub(super) epoch: Epoch,
    pub(super) events: VecDeque<Kept>,
    /// The number of `events`' first element, or the next number when it is empty.
    pub(super) first_seq: u64,
    pub(super) delivered_seq: u64,
    /// The greatest timestamp so far, and the greatest time when an event was stored, also of events that
    /// are gone.
    latest_at: Timestamp,
    stored_at: Timestamp,
    unread: u64,
    unseen: u64,
    /// The number up to which events have been seen.
    seen_seq: u64,
    revision: u64,
    /// The events of the inbox that have a key.
    keyed: HashMap<EventKey, Vec<u64>>,
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
            latest_at: Timestamp::MIN,
            stored_at: Timestamp::MIN,
            unread: 0,
            unseen: 0,
            seen_seq: 0,
            revision: 0,
            keyed: HashMap::new(),
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
            unseen: self.unseen,
            revision: self.revision,
        }
    }

    pub(super) fn append(&mut self, draft: Draft, stored_at: Timestamp) -> Event {
        let id = EventId::new(self.epoch, self.top_seq() + 1);
        let event = Event::from_draft(draft, id);
        self.latest_at = self.latest_at.max(event.timestamp);
        self.stored_at = self.stored_at.max(stored_at);
        let kept = Kept {
            latest_at: self.latest_at,
            stored_at: self.stored_at,
            event: event.clone(),
        };
        if let Some(key) = &event.key {
            for earlier in self.keyed.remove(key).unwrap_or_default() {
                self.edit(EventId::new(self.epoch, earlier), |event| {
                    event.archived_at = Some(kept.stored_at);
                });
            }
            self.keyed.insert(key.clone(), vec![id.seq]);
            self.revision += 1;
        }
        self.events.push_back(kept);
        self.unread += 1;
        self.unseen += 1;
        event
    }

    /// Removes the oldest events as long as they are to go, and returns how many there were, and
    /// whether the counts changed.
    pub(super) fn drop_while(&mut self, is_to_go: impl Fn(&Self, &Kept) -> bool) -> (u64, bool) {
        let before = (self.unread, self.unseen);
        let mut dropped = 0;
        while self.events.front().is_some_and(|kept| is_to_go(self, kept)) {
            let first = EventId::new(self.epoch, self.first_seq);
            // Off the counts, and out of the keys.
            self.edit(first, |event| event.archived_at = Some(event.timestamp));
            self.events.pop_front();
            self.first_seq += 1;
            dropped += 1;
        }
        let counts_changed = before != (self.unread, self.unseen);
        self.revision += u64::from(counts_changed);
        (dropped, counts_changed)
    }

    /// The index of an event in `events`, if this log has it.
    pub(super) fn index(&self, id: EventId) -> Option<usize> {
        if id.epoch != self.epoch {
            return None;
        }
        let index = usize::try_from(id.seq.checked_sub(self.first_seq)?).ok()?;
        (index < self.events.len()).then_some(index)
    }

    /// Changes the state of an event, and the counts with it. Returns `false` if there is no such
    /// event, or if it is the same as before.
    fn edit(&mut self, id: EventId, edit: impl FnOnce(&mut Event)) -> bool {
        let index = self.index(id);
        let Some(kept) = index.and_then(|index| self.events.get_mut(index)) else {
            return false;
        };
        let is_unseen = kept.event.id.seq > self.seen_seq;
        let counts = |event: &Event| {
            let unread = u64::from(event.read_at.is_none() && event.archived_at.is_none());
            (unread, if is_unseen { unread } else { 0 })
        };
        let before = (kept.event.read_at, kept.event.archived_at);
        let (unread, unseen) = counts(&kept.event);
        edit(&mut kept.event);
        let event = &kept.event;
        self.unread = self.unread + counts(event).0 - unread;
        self.unseen = self.unseen + counts(event).1 - unseen;
        if let Some(key) = &event.key
            && before.1.is_some() != event.archived_at.is_some()
        {
            let keyed = self.keyed.entry(key.clone()).or_default();
            if event.archived_at.is_some() {
                keyed.retain(|seq| *seq != id.seq);
            } else {
                keyed.push(id.seq);
            }
            if keyed.is_empty() {
                self.keyed.remove(key);
            }
        }
        before != (event.read_at, event.archived_at)
    }

    fn edit_each(&mut self, ids: &[EventId], edit: impl Fn(&mut Event)) -> Vec<EventId> {
        ids.iter()
            .copied()
            .filter(|id| self.edit(*id, &edit))
            .collect()
    }

    pub(super) fn change(&mut self, action: &InboxAction, at: Timestamp) -> InboxUpdate {
        let top = self.head().top();
        let of_ids = |ids: Vec<EventId>, what: fn(std::sync::Arc<[EventId]>) -> Changed| {
            (ids.len() as u64, what(ids.into()))
        };
        let (changed, what) = match action {
            InboxAction::Read(ids) => {
                let read = |event: &mut Event| event.read_at = event.read_at.or(Some(at));
                of_ids(self.edit_each(ids, read), Changed::Read)
            }
            InboxAction::Unread(ids) => of_ids(
                self.edit_each(ids, |event| event.read_at = None),
                Changed::Unread,
            ),
            InboxAction::Archive(ids) => {
                let archive =
                    |event: &mut Event| event.archived_at = event.archived_at.or(Some(at));
                of_ids(self.edit_each(ids, archive), Changed::Archived)
            }
            InboxAction::Unarchive(ids) => {
                let back = |event: &mut Event| event.archived_at = None;
                of_ids(self.edit_each(ids, back), Changed::Unarchived)
            }
            InboxAction::ReadUpTo(id) => self.read_up_to(*id, at),
            InboxAction::ReadAll => self.read_up_to(top, at),
            InboxAction::SeeUpTo(id) => self.see_up_to(*id),
            InboxAction::SeeAll => self.see_up_to(top),
        };
        self.revision += u64::from(changed > 0);
        InboxUpdate {
            changed,
            revision: self.revision,
            change: InboxChange {
                what,
                unread: self.unread,
                unseen: self.unseen,
                cursor: top,
            },
        }
    }

    fn read_up_to(&mut self, id: EventId, at: Timestamp) -> (u64, Changed) {
        let last = id.clamped(self.head().top());
        let before = self.unread;
        for seq in self.first_seq..=last.map_or(0, |last| last.seq) {
            self.edit(EventId::new(self.epoch, seq), |event| {
                if event.archived_at.is_none() {
                    event.read_at = event.read_at.or(Some(at));
                }
            });
        }
        let what = last.map_or(Changed::Read([].into()), Changed::ReadUpTo);
        (before - self.unread, what)
    }

    fn see_up_to(&mut self, id: EventId) -> (u64, Changed) {
        let Some(last) = id.clamped(self.head().top()) else {
            return (0, Changed::Read([].into()));
        };
        let before = self.unseen;
        self.seen_seq = self.seen_seq.max(last.seq);
        let counts = |kept: &&Kept| {
            let event = &kept.event;
            event.id.seq > self.seen_seq && event.read_at.is_none() && event.archived_at.is_none()
        };
        self.unseen = self.events.iter().filter(counts).count() as u64;
        (before - self.unseen, Changed::SeenUpTo(last))
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
                    && event.archived_at.is_some() == query.is_archived_only()
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
            ..InboxPage::of(&self.head())
        })
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{EventType, Payload, UserId};

    fn draft() -> Draft {
        Draft::new(
            UserId::new("ann").unwrap(),
            EventType::new("test").unwrap(),
            Payload::parse("1").unwrap(),
        )
    }

    fn at(hour: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hour)
    }

    #[test]
    fn events_stored_after_the_clock_was_set_back_age_from_the_latest_time() {
        let mut log = Log::new();
        for hour in [5, 6, 5, 7] {
            log.append(draft(), at(hour));
        }
        let stored: Vec<_> = log.events.iter().map(|kept| kept.stored_at).collect();
        assert_eq!(stored, [5, 6, 6, 7].map(at));
        let dropped = log.drop_while(|_, kept| kept.stored_at < at(6));
        assert_eq!(dropped, (1, true));
        assert_eq!((log.first_seq, log.head().unread), (2, 3));
    }

    #[test]
    fn regression_a_log_without_events_keeps_its_latest_times() {
        let mut log = Log::new();
        log.append(draft().with_timestamp(at(9)), at(6));
        log.drop_while(|_, _| true);
        log.append(draft().with_timestamp(at(1)), at(5));
        let times = log
            .events
            .iter()
            .map(|kept| (kept.latest_at, kept.stored_at));
        assert_eq!(times.collect::<Vec<_>>(), [(at(9), at(6))]);
    }
}
