//! A store that ends with the process.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::budget::{Budget, cost};
use crate::event::to_microseconds;
use crate::read::{Marked, ReadChange, ReadScope, ReadUpdate};
use crate::{
    ChangeMark, Changes, Draft, Epoch, Event, EventId, Head, InboxPage, InboxQuery, LogChange,
    MAX_INBOX_PAGE_BYTES, MAX_PAGE_BYTES, Page, Store, StoreError, UserId,
};

/// Events kept of each user, unless set.
const DEFAULT_MAX_EVENTS: usize = 10_000;

/// Keeps the logs in memory: for tests, and where a restart may forget everything. Clones share
/// them.
///
/// Each log is bounded; the oldest events make room for new ones. After a restart every log has a
/// new epoch, so that clients with old cursors are told of the gap.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    logs: Arc<Mutex<Logs>>,
    max_events: usize,
}

#[derive(Debug, Default)]
struct Logs {
    by_user: HashMap<UserId, Log>,
    /// Who changed at which mark, each user once.
    changes: BTreeMap<u64, UserId>,
    mark: u64,
    is_closed: bool,
}

#[derive(Debug)]
struct Log {
    epoch: Epoch,
    events: VecDeque<Kept>,
    /// The number of `events`' first element, or the next number when it is empty.
    first_seq: u64,
    delivered_seq: u64,
    unread: u64,
    read_revision: u64,
    /// The mark under which the log stands in `changes`.
    changed: u64,
}

/// An event with two times that never fall along the log: one to find it by, one to age by.
#[derive(Debug)]
struct Kept {
    event: Event,
    /// The greatest timestamp so far.
    latest_at: Timestamp,
    /// The time when it was stored.
    stored_at: Timestamp,
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store that keeps the newest 10,000 events of each user.
    pub fn new() -> Self {
        Self {
            logs: Arc::default(),
            max_events: DEFAULT_MAX_EVENTS,
        }
    }

    /// Sets how many events of each user are kept; at least one.
    #[must_use]
    pub fn with_max_events_per_user(mut self, max: usize) -> Self {
        self.max_events = max.max(1);
        self
    }

    fn open(&self) -> Result<MutexGuard<'_, Logs>, StoreError> {
        // Nothing in here panics half-way through a change.
        let logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        if logs.is_closed {
            Err(StoreError::Closed)
        } else {
            Ok(logs)
        }
    }
}

impl Logs {
    fn append(&mut self, draft: Draft, stored_at: Timestamp, max_events: usize) -> Event {
        let user = draft.user.clone();
        let log = self.by_user.entry(user.clone()).or_insert_with(Log::new);
        let event = log.append(draft, stored_at);
        let mut dropped_unread = 0;
        while log.events.len() > max_events {
            dropped_unread += u64::from(log.drop_first());
        }
        log.count_off(dropped_unread);
        self.note_change(&user);
        event
    }

    fn note_change(&mut self, user: &UserId) {
        let Some(log) = self.by_user.get_mut(user) else {
            return;
        };
        self.mark += 1;
        self.changes.remove(&log.changed);
        log.changed = self.mark;
        self.changes.insert(self.mark, user.clone());
    }
}

impl Log {
    fn new() -> Self {
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

    fn top_seq(&self) -> u64 {
        self.first_seq + self.events.len() as u64 - 1
    }

    fn head(&self) -> Head {
        Head {
            epoch: self.epoch,
            first_seq: self.first_seq,
            top_seq: self.top_seq(),
            delivered_seq: self.delivered_seq,
            unread: self.unread,
            read_revision: self.read_revision,
        }
    }

    fn append(&mut self, draft: Draft, stored_at: Timestamp) -> Event {
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

    /// Removes the oldest event and tells whether it was unread.
    fn drop_first(&mut self) -> bool {
        let Some(kept) = self.events.pop_front() else {
            return false;
        };
        self.first_seq += 1;
        kept.event.read_at.is_none()
    }

    fn count_off(&mut self, unread: u64) {
        if unread > 0 {
            self.unread -= unread;
            self.read_revision += 1;
        }
    }

    /// Where an event stands in `events`, if this log has it.
    fn index(&self, id: EventId) -> Option<usize> {
        if id.epoch != self.epoch {
            return None;
        }
        let index = usize::try_from(id.seq.checked_sub(self.first_seq)?).ok()?;
        (index < self.events.len()).then_some(index)
    }

    fn mark_read(&mut self, scope: &ReadScope, at: Timestamp) -> ReadUpdate {
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

    fn inbox(&self, query: &InboxQuery) -> Result<InboxPage, StoreError> {
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
            if events.len() == query.limit() || !budget.admits(cost(event)) {
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

impl Store for MemoryStore {
    async fn append(&self, drafts: Vec<Draft>) -> Result<Vec<Event>, StoreError> {
        let mut logs = self.open()?;
        // Under the lock, so that the times rise along every log.
        let now = to_microseconds(Timestamp::now());
        let append = |draft| logs.append(draft, now, self.max_events);
        Ok(drafts.into_iter().map(append).collect())
    }

    async fn read(&self, user: &UserId, after: u64, limit: usize) -> Result<Page, StoreError> {
        let logs = self.open()?;
        let Some(log) = logs.by_user.get(user) else {
            return Ok(Page::empty());
        };
        let skipped = after.saturating_add(1).saturating_sub(log.first_seq);
        let events = log
            .events
            .iter()
            .skip(usize::try_from(skipped).unwrap_or(usize::MAX))
            .map(|kept| &kept.event);
        let mut budget = Budget::new(MAX_PAGE_BYTES);
        let page = events
            .take(limit)
            .take_while(|event| budget.admits(cost(event)));
        Ok(Page {
            epoch: log.epoch,
            first_seq: log.first_seq,
            top_seq: log.top_seq(),
            events: page.cloned().collect(),
        })
    }

    async fn head(&self, user: &UserId) -> Result<Head, StoreError> {
        let logs = self.open()?;
        Ok(logs.by_user.get(user).map_or(Head::EMPTY, Log::head))
    }

    async fn find(&self, user: &UserId, id: EventId) -> Result<Option<Event>, StoreError> {
        let logs = self.open()?;
        let found = logs.by_user.get(user).and_then(|log| {
            let kept = log.events.get(log.index(id)?)?;
            Some(kept.event.clone())
        });
        Ok(found)
    }

    async fn inbox(&self, user: &UserId, query: &InboxQuery) -> Result<InboxPage, StoreError> {
        let logs = self.open()?;
        match (logs.by_user.get(user), query.cursor()) {
            (Some(log), _) => log.inbox(query),
            (None, None) => Ok(InboxPage::empty()),
            (None, Some(_)) => Err(StoreError::ForeignCursor),
        }
    }

    async fn mark_read(
        &self,
        user: &UserId,
        scope: &ReadScope,
        at: Timestamp,
    ) -> Result<ReadUpdate, StoreError> {
        let mut logs = self.open()?;
        let Some(log) = logs.by_user.get_mut(user) else {
            return Ok(ReadUpdate::nothing());
        };
        let update = log.mark_read(scope, at);
        if update.changed > 0 {
            logs.note_change(user);
        }
        Ok(update)
    }

    async fn mark_delivered(&self, marks: Vec<(UserId, EventId)>) -> Result<(), StoreError> {
        let mut logs = self.open()?;
        for (user, id) in marks {
            if let Some(log) = logs.by_user.get_mut(&user)
                && log.epoch == id.epoch
                && id.seq <= log.top_seq()
            {
                log.delivered_seq = log.delivered_seq.max(id.seq);
            }
        }
        Ok(())
    }

    async fn cursor_before(&self, user: &UserId, time: Timestamp) -> Result<EventId, StoreError> {
        let logs = self.open()?;
        let Some(log) = logs.by_user.get(user) else {
            return Ok(EventId::ORIGIN);
        };
        let earlier = log.events.partition_point(|kept| kept.latest_at < time);
        let seq = log.first_seq - 1 + earlier as u64;
        Ok(EventId::new(log.epoch, seq))
    }

    async fn mark(&self) -> Result<ChangeMark, StoreError> {
        Ok(ChangeMark::from_u64(self.open()?.mark))
    }

    async fn changes(&self, after: ChangeMark, limit: usize) -> Result<Changes, StoreError> {
        let logs = self.open()?;
        let mut mark = ChangeMark::from_u64(logs.mark);
        let mut changed = Vec::new();
        let later = after.as_u64().saturating_add(1)..;
        for (at, user) in logs.changes.range(later).take(limit) {
            mark = ChangeMark::from_u64(*at);
            if let Some(log) = logs.by_user.get(user) {
                changed.push(LogChange {
                    user: user.clone(),
                    epoch: log.epoch,
                    top_seq: log.top_seq(),
                    unread: log.unread,
                    read_revision: log.read_revision,
                });
            }
        }
        Ok(Changes {
            more: mark.as_u64() < logs.mark,
            mark,
            logs: changed,
        })
    }

    async fn cleanup(&self, cutoff: Timestamp) -> Result<u64, StoreError> {
        let users: Vec<_> = self.open()?.by_user.keys().cloned().collect();
        let mut removed = 0;
        for user in users {
            // Locked for one log at a time.
            let mut logs = self.open()?;
            let Some(log) = logs.by_user.get_mut(&user) else {
                continue;
            };
            let mut unread = 0;
            while let Some(kept) = log.events.front()
                && kept.stored_at < cutoff
            {
                unread += u64::from(log.drop_first());
                removed += 1;
            }
            log.count_off(unread);
            if unread > 0 {
                logs.note_change(&user);
            }
        }
        Ok(removed)
    }

    async fn close(&self) {
        let mut logs = self.logs.lock().unwrap_or_else(PoisonError::into_inner);
        *logs = Logs {
            is_closed: true,
            ..Logs::default()
        };
    }
}
