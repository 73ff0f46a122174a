//! A store that ends with the process.

mod log;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;

use self::log::{Kept, Log};
use super::check_drafts;
use crate::budget::{Budget, cost};
use crate::event::to_microseconds;
use crate::{
    ChangeMark, Changes, Draft, Event, EventId, Head, InboxAction, InboxPage, InboxQuery,
    InboxUpdate, LogChange, MAX_PAGE_BYTES, Page, Store, StoreError, UserId,
};

/// Events kept of each user, unless set.
const DEFAULT_MAX_EVENTS: usize = 10_000;

/// Keeps the logs in memory: for tests, and where a restart may lose everything. Clones share the
/// logs.
///
/// Each log is bounded; the oldest events are removed for new ones. After a restart every log has a
/// new epoch, so that clients with old cursors get a gap.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    logs: Arc<Mutex<Logs>>,
    max_events: usize,
    keeps_unread: bool,
}

#[derive(Debug, Default)]
struct Logs {
    by_user: HashMap<UserId, Log>,
    changes: ChangedUsers,
    is_closed: bool,
}

/// Who changed at which mark, in order. Of each user the last one counts: the log has its mark.
#[derive(Debug, Default)]
struct ChangedUsers {
    mark: u64,
    users: VecDeque<(u64, UserId)>,
}

impl ChangedUsers {
    fn note(&mut self, log: &mut Log, user: &UserId) {
        self.mark += 1;
        log.changed = self.mark;
        self.users.push_back((self.mark, user.clone()));
    }
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
            keeps_unread: false,
        }
    }

    /// Sets how many events of each user are kept; zero means one.
    #[must_use]
    pub fn with_max_events_per_user(mut self, max: usize) -> Self {
        self.max_events = max.max(1);
        self
    }

    /// Keeps the oldest unread event of every inbox, and what came after it, whatever the number and the
    /// age: a user who reads nothing has a log without a limit.
    #[must_use]
    pub fn with_unread_kept(mut self) -> Self {
        self.keeps_unread = true;
        self
    }

    fn may_go(&self, kept: &Kept) -> bool {
        let event = &kept.event;
        !self.keeps_unread || event.read_at.is_some() || event.archived_at.is_some()
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
    fn append(
        &mut self,
        drafts: Vec<Draft>,
        stored_at: Timestamp,
        store: &MemoryStore,
    ) -> Vec<Event> {
        let begun = self.changes.mark;
        let append = |draft: Draft| {
            let entry = self.by_user.entry(draft.user.clone());
            let log = entry.or_insert_with(Log::new);
            let event = log.append(draft, stored_at);
            log.drop_while(|log, kept| log.events.len() > store.max_events && store.may_go(kept));
            // Once for all events of a call.
            if log.changed <= begun {
                self.changes.note(log, &event.user);
            }
            event
        };
        let events = drafts.into_iter().map(append).collect();
        self.forget_overtaken();
        events
    }

    fn note_change(&mut self, user: &UserId) {
        if let Some(log) = self.by_user.get_mut(user) {
            self.changes.note(log, user);
        }
        self.forget_overtaken();
    }

    /// Forgets changes that later ones of the same users have overtaken, once they are most of all.
    fn forget_overtaken(&mut self) {
        if self.changes.users.len() > 2 * self.by_user.len() + 1024 {
            let by_user = &self.by_user;
            let is_last = |(mark, user): &(u64, UserId)| {
                by_user.get(user).is_some_and(|log| log.changed == *mark)
            };
            self.changes.users.retain(is_last);
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn append(&self, drafts: Vec<Draft>) -> Result<Vec<Event>, StoreError> {
        check_drafts(&drafts)?;
        let mut logs = self.open()?;
        // Under the lock, so that the times rise along every log.
        let now = to_microseconds(Timestamp::now());
        Ok(logs.append(drafts, now, self))
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
            .take_while(|event| budget.admit(cost(event)));
        Ok(Page {
            head: log.head(),
            events: page.cloned().collect(),
        })
    }

    async fn heads(&self, users: &[UserId]) -> Result<Vec<Head>, StoreError> {
        let logs = self.open()?;
        let head = |user| logs.by_user.get(user).map_or(Head::EMPTY, Log::head);
        Ok(users.iter().map(head).collect())
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

    async fn change(
        &self,
        user: &UserId,
        action: &InboxAction,
        at: Timestamp,
    ) -> Result<InboxUpdate, StoreError> {
        action.check()?;
        let mut logs = self.open()?;
        let Some(log) = logs.by_user.get_mut(user) else {
            return Ok(InboxUpdate::nothing());
        };
        let update = log.change(action, at);
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
        Ok(ChangeMark::from_u64(self.open()?.changes.mark))
    }

    async fn changes(&self, after: &ChangeMark, limit: usize) -> Result<Changes, StoreError> {
        let logs = self.open()?;
        let newest = logs.changes.mark;
        let Some(after) = after.as_u64().filter(|after| *after <= newest) else {
            return Ok(Changes {
                mark: ChangeMark::from_u64(newest),
                logs: Vec::new(),
                more: false,
                rewound: true,
            });
        };
        let noted = &logs.changes.users;
        let first = noted.partition_point(|(mark, _)| *mark <= after);
        let mut last = newest;
        let mut changed = Vec::new();
        let later = noted.range(first..);
        let later = later.filter_map(|(mark, user)| {
            let log = logs.by_user.get(user)?;
            (log.changed == *mark).then_some((*mark, user, log))
        });
        for (mark, user, log) in later.take(limit) {
            last = mark;
            changed.push(LogChange {
                user: user.clone(),
                head: log.head(),
            });
        }
        Ok(Changes {
            mark: ChangeMark::from_u64(last),
            logs: changed,
            more: last < newest,
            rewound: false,
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
            let (dropped, counts_changed) =
                log.drop_while(|_, kept| kept.stored_at < cutoff && self.may_go(kept));
            removed += dropped;
            if counts_changed {
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
