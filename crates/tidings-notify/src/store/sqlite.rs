//! The durable store on a SQLite file.
//!
//! | table | holds |
//! |---|---|
//! | `notify_log` | one row a user: epoch, first and top number, counters, and `changed`, which numbers all changes of the file |
//! | `notify_state`, `notify_read_mark` | what was read and archived, see `state.rs` |
//! | `notify_archived` | the runs of archived events, see `archived.rs` |
//! | `notify_key` | the events of the inbox that have a key |
//! | `notify_event` | one row an event, keyed by log and number packed into one integer, so that a log is one stretch of one B-tree |

mod append;
mod archived;
mod change;
mod cleanup;
mod copy;
mod inbox;
mod log;
pub(super) mod schema;
mod state;

use async_trait::async_trait;
use jiff::Timestamp;
use tidings_sqlite::{Database, Handle};

use super::check_drafts;
use super::retention::Retention;
use crate::{
    ChangeMark, Changes, Draft, Event, EventId, Head, InboxAction, InboxPage, InboxQuery,
    InboxUpdate, Page, Store, StoreError, UserId,
};

pub use append::append_in;

/// What a cleanup leaves.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct SqliteOptions {
    retention: Retention,
}

impl SqliteOptions {
    /// Sets how many events of each user a [`cleanup`](Store::cleanup) leaves, however young they are;
    /// at least one. Without it, events are removed by their age alone.
    pub fn with_max_events_per_user(mut self, max: u64) -> Self {
        self.retention.max_events = Some(max.max(1));
        self
    }

    /// Has a [`cleanup`](Store::cleanup) leave the oldest unread event of every inbox, and what came after it,
    /// whatever the number and the age: a user who reads nothing has a log without a limit.
    pub fn with_unread_kept(mut self) -> Self {
        self.retention.keeps_unread = true;
        self
    }
}

/// Keeps the logs in a SQLite file, which other components may share.
///
/// When a call that appends or changes the inbox returns `Ok`, the change is on disk. Clones share the
/// store.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    handle: Handle,
    retention: Retention,
}

impl SqliteStore {
    /// Brings the tables up to date and returns the store.
    ///
    /// If the database has an [exclusive lock](tidings_sqlite::Options::with_exclusive_lock) and its file
    /// [is a copy](tidings_sqlite::Database::is_copy), its logs get new epochs: ids of events that are gone are not given
    /// to new ones.
    ///
    /// # Errors
    ///
    /// [`StoreError::Closed`] when the database is closed, [`StoreError::Unavailable`] when another process holds the lock
    /// of its file, [`StoreError::Full`] when there is no room for the tables, [`StoreError::Backend`] when they were made
    /// by a newer version or the database fails.
    pub async fn open(database: Database, options: SqliteOptions) -> Result<Self, StoreError> {
        database.migrate(schema::COMPONENT, schema::STEPS).await?;
        copy::begin_anew_if_copy(&database).await?;
        Ok(Self {
            handle: Handle::new(database),
            retention: options.retention,
        })
    }
}

#[async_trait]
impl Store for SqliteStore {
    async fn append(&self, drafts: Vec<Draft>) -> Result<Vec<Event>, StoreError> {
        check_drafts(&drafts)?;
        self.handle.write(move |tx| append_in(tx, &drafts)).await
    }

    async fn read(&self, user: &UserId, after: u64, limit: usize) -> Result<Page, StoreError> {
        let user = user.clone();
        self.handle
            .read(move |connection| log::read(connection, &user, after, limit))
            .await
    }

    async fn heads(&self, users: &[UserId]) -> Result<Vec<Head>, StoreError> {
        let users = users.to_vec();
        self.handle
            .read(move |connection| {
                let head = |user| log::head(connection, user);
                users.iter().map(head).collect()
            })
            .await
    }

    async fn find(&self, user: &UserId, id: EventId) -> Result<Option<Event>, StoreError> {
        let user = user.clone();
        self.handle
            .read(move |connection| log::find(connection, &user, id))
            .await
    }

    async fn inbox(&self, user: &UserId, query: &InboxQuery) -> Result<InboxPage, StoreError> {
        let (user, query) = (user.clone(), query.clone());
        self.handle
            .list(move |connection| inbox::page(connection, &user, &query))
            .await
    }

    async fn change(
        &self,
        user: &UserId,
        action: &InboxAction,
        at: Timestamp,
    ) -> Result<InboxUpdate, StoreError> {
        action.check()?;
        let (user, action) = (user.clone(), action.clone());
        self.handle
            .write(move |tx| change::change(tx, &user, &action, at))
            .await
    }

    async fn mark_delivered(&self, marks: Vec<(UserId, EventId)>) -> Result<(), StoreError> {
        self.handle
            .write_relaxed(move |tx| log::mark_delivered(tx, &marks))
            .await
    }

    async fn cursor_before(&self, user: &UserId, time: Timestamp) -> Result<EventId, StoreError> {
        let user = user.clone();
        self.handle
            .read(move |connection| log::cursor_before(connection, &user, time))
            .await
    }

    async fn mark(&self) -> Result<ChangeMark, StoreError> {
        self.handle.read(log::mark).await
    }

    async fn changes(&self, after: &ChangeMark, limit: usize) -> Result<Changes, StoreError> {
        let after = after.as_u64();
        self.handle
            .read(move |connection| log::changes(connection, after, limit))
            .await
    }

    async fn cleanup(&self, cutoff: Timestamp) -> Result<u64, StoreError> {
        cleanup::run(&self.handle, self.retention, cutoff).await
    }

    /// Refuses later calls on this store and its clones. The database stays open for the other
    /// components that share it.
    async fn close(&self) {
        self.handle.close();
    }
}

#[cfg(test)]
mod tests;
