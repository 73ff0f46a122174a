//! The durable store on a PostgreSQL database, version 14 or later, which many instances share.
//!
//! | table `tidings_notify_…` | holds |
//! |---|---|
//! | `log` | one row a user: epoch, first and top number, counts, and the lock of those that write |
//! | `event` | one row an event |
//! | `state`, `read_mark` | what was read and archived, as on SQLite |
//! | `archived` | the runs of archived events, as on SQLite |
//! | `key` | the events of the inbox that have a key |
//! | `delivered` | one row a user who was sent something |
//!
//! # Locks
//!
//! Whatever changes a log is one call of a function in the database, and locks the log's row. Callers
//! of [`Store::append`] that wait at the same time share one call, for any number of users, whose rows
//! are locked in the order of the users. A log that another transaction holds delays only those who
//! append to it or change its inbox: they try again, and hold no connection meanwhile. A cleanup passes
//! it over.
//!
//! # In the application's own transaction
//!
//! [`append_in`], and for any language the SQL function `tidings_notify(user_id, type, payload, key,
//! occurred_at)`, append within the transaction of the caller: a rollback leaves nothing, and a commit
//! reaches inbox and screens. `tidings_notify_all(user_ids, …)` does the same for several users. Screens
//! are woken by their next sweep, or at once by `tidings_notify_wake(user_id, …)`, called after the
//! commit.
//!
//! # Wake-ups
//!
//! One connection listens. A notification names users, and is sent after the commit that it is about, by
//! a transaction of its own for all changes within some milliseconds: the server makes commits that
//! notify one after the other. Notifications that are lost are made good by sweeps.
//!
//! Where many instances make many changes, another
//! [channel](PostgresOptions::with_wake_channel) takes this work from the database; `NOTIFY` is used only
//! while the channel does not work.
//!
//! # A replica that is promoted
//!
//! It may lack the newest events of the server that it replaces. So a log gets a new epoch with its
//! first event on another timeline, and readers who were there before get a gap.

mod announce;
mod append;
mod change;
mod changes;
mod cleanup;
mod group_commit;
mod listen;
mod log;
mod patience;
mod schema;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
pub use tidings_postgres::{Config, tokio_postgres};
use tidings_postgres::{Connections, Database, Sessions};
use tokio_postgres::types::Type;
use tokio_util::task::AbortOnDropHandle;

use super::check_drafts;
use super::retention::Retention;
use crate::{
    ChangeMark, Changes, Draft, Event, EventId, Head, InboxAction, InboxPage, InboxQuery,
    InboxUpdate, Page, Store, StoreError, UserId, WakeChannel, WakeSender, Wakes,
};
use announce::Announcer;
use group_commit::GroupCommit;
use patience::Patience;

pub use append::{CallOutcome, append_calls_in, append_in};

/// The name of its tables in the list of schemas, and the version that this package makes.
pub const SCHEMA: (&str, usize) = (schema::COMPONENT, schema::STEPS.len());

/// Wake-ups that a notifier may fall behind, before it looks at everything.
const WAKES: usize = 4096;

/// How to use the database.
#[derive(Debug, Clone)]
#[must_use]
pub struct PostgresOptions {
    connections: usize,
    retention: Retention,
    channel: Option<Arc<dyn WakeChannel>>,
}

impl Default for PostgresOptions {
    /// Four connections, and events are removed by their age alone.
    fn default() -> Self {
        Self {
            connections: 4,
            retention: Retention::default(),
            channel: None,
        }
    }
}

impl PostgresOptions {
    /// Sets how many connections there are at most, beside the one that appends and the one that
    /// listens; zero means one.
    pub fn with_connections(mut self, connections: usize) -> Self {
        self.connections = connections.max(1);
        self
    }

    /// Sets how many events of each user a [`cleanup`](Store::cleanup) leaves, however young they are;
    /// zero means one.
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

    /// Sends wake-ups over this channel, and by `NOTIFY` only when it fails, panics, or has not sent within the reply
    /// limit of the database. What other processes send is heard from both.
    pub fn with_wake_channel(mut self, channel: Arc<dyn WakeChannel>) -> Self {
        self.channel = Some(channel);
        self
    }
}

/// Keeps the logs in a PostgreSQL database.
///
/// When a call that appends or changes the inbox returns `Ok`, the change is on the server's disk.
/// Clones share the connections.
///
/// What appends, and what wakes others and listens to them, runs on the runtime that the store was opened on. After its
/// end, appends return [`StoreError::Closed`], and only sweeps find what others have changed.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    connections: Arc<Connections>,
    appending: Arc<Connections>,
    commit: GroupCommit,
    announcer: Announcer,
    wakes: WakeSender,
    retention: Retention,
    /// How long a call waits for a log that another transaction holds.
    patience: Duration,
    /// Announcing and listening; empty once the store is closed.
    tasks: Mutex<Vec<AbortOnDropHandle<()>>>,
    /// After the store was closed, it refuses what it is given.
    _committing: AbortOnDropHandle<()>,
}

impl PostgresStore {
    /// Brings the tables up to date, and returns the store. The tables are those of the search path.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] when the server cannot be reached, [`StoreError::OutcomeUnknown`] when it does not
    /// reply, [`StoreError::Backend`] when it does not let this role create tables, or has tables of a newer version. The
    /// call can be repeated.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which the tasks of connections need.
    pub async fn open(config: Config, options: PostgresOptions) -> Result<Self, StoreError> {
        Self::boxed_open(config, options).await
    }

    /// The body of an `async fn` is compiled in each crate that awaits it; a box, and the tasks that begin in it, in this one.
    fn boxed_open(
        config: Config,
        options: PostgresOptions,
    ) -> BoxFuture<'static, Result<Self, StoreError>> {
        async move {
            let database = Database::new(config.clone());
            database.migrate(schema::COMPONENT, schema::STEPS).await?;
            let sessions = Sessions::of(&database).await?;
            let connections = Arc::new(Connections::new(database, options.connections, sessions));
            // One that waits for the disk delays no reader.
            let appending = Connections::new(Database::new(config.clone()), 1, sessions);
            let appending = Arc::new(appending);
            let row = connections
                .row("SELECT tidings_notify_channel()", &[])
                .await?;
            let wakes = WakeSender::new(WAKES);
            let announcer = Announcer::new(wakes.clone());
            let patience = config.reply_limit();
            let listening = listen::keep_listening(
                config,
                log::get(&row, 0)?,
                wakes.clone(),
                announcer.sender(),
            );
            let (commit, committing) =
                group_commit::group_commit(appending.clone(), announcer.clone(), patience);
            let heard = options.channel.as_ref().map(|channel| channel.wakes());
            let announcing = announcer
                .clone()
                .run(connections.clone(), options.channel, patience);
            let mut tasks = vec![
                AbortOnDropHandle::new(tokio::spawn(announcing.boxed())),
                AbortOnDropHandle::new(tokio::spawn(listening.boxed())),
            ];
            if let Some(heard) = heard {
                let passing_on = tokio::spawn(pass_on(heard, wakes.clone()).boxed());
                tasks.push(AbortOnDropHandle::new(passing_on));
            }
            Ok(Self {
                shared: Arc::new(Shared {
                    connections,
                    appending,
                    commit,
                    announcer,
                    wakes,
                    retention: options.retention,
                    patience,
                    tasks: Mutex::new(tasks),
                    _committing: AbortOnDropHandle::new(tokio::spawn(committing.boxed())),
                }),
            })
        }
        .boxed()
    }

    /// Has the screens of these users woken that other processes have: after the commit of a transaction
    /// that called [`append_in`]. Never waits.
    pub fn wake<'a>(&self, users: impl IntoIterator<Item = &'a UserId>) {
        self.shared.announcer.announce(users);
    }

    fn connections(&self) -> &Connections {
        &self.shared.connections
    }
}

#[async_trait]
impl Store for PostgresStore {
    async fn append(&self, drafts: Vec<Draft>) -> Result<Vec<Event>, StoreError> {
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        check_drafts(&drafts)?;
        self.shared.commit.append(drafts).await
    }

    async fn read(&self, user: &UserId, after: u64, limit: usize) -> Result<Page, StoreError> {
        log::read(self.connections(), user, after, limit).await
    }

    async fn heads(&self, users: &[UserId]) -> Result<Vec<Head>, StoreError> {
        log::heads(self.connections(), users).await
    }

    async fn find(&self, user: &UserId, id: EventId) -> Result<Option<Event>, StoreError> {
        log::find(self.connections(), user, id).await
    }

    async fn inbox(&self, user: &UserId, query: &InboxQuery) -> Result<InboxPage, StoreError> {
        log::inbox(self.connections(), user, query).await
    }

    async fn change(
        &self,
        user: &UserId,
        action: &InboxAction,
        at: Timestamp,
    ) -> Result<InboxUpdate, StoreError> {
        action.check()?;
        let patience = Patience::new(self.shared.patience);
        let update = change::change(self.connections(), patience, user, action, at).await?;
        if update.changed > 0 {
            self.shared.announcer.announce([user]);
        }
        Ok(update)
    }

    async fn mark_delivered(&self, marks: Vec<(UserId, EventId)>) -> Result<(), StoreError> {
        let users: Vec<&str> = marks.iter().map(|(user, _)| user.as_str()).collect();
        let epochs: Vec<i64> = marks
            .iter()
            .map(|(_, id)| schema::epoch_column(id.epoch))
            .collect();
        let seqs: Vec<i64> = marks.iter().map(|(_, id)| schema::column(id.seq)).collect();
        let parameters = [
            (&users as _, Type::TEXT_ARRAY),
            (&epochs as _, Type::INT8_ARRAY),
            (&seqs as _, Type::INT8_ARRAY),
        ];
        let deliver = "SELECT tidings_notify_deliver($1, $2, $3)";
        self.connections().query(deliver, &parameters).await?;
        Ok(())
    }

    async fn cursor_before(&self, user: &UserId, time: Timestamp) -> Result<EventId, StoreError> {
        let parameters = [
            (&user.as_str() as _, Type::TEXT),
            (&time.as_microsecond() as _, Type::INT8),
        ];
        let before = "SELECT epoch, seq FROM tidings_notify_cursor_before($1, $2)";
        let rows = self.connections().query(before, &parameters).await?;
        match rows.first() {
            Some(row) => {
                let (epoch, seq) = (log::get(row, 0)?, log::get(row, 1)?);
                Ok(EventId::new(schema::epoch(epoch), schema::number(seq)))
            }
            None => Ok(EventId::ORIGIN),
        }
    }

    async fn mark(&self) -> Result<ChangeMark, StoreError> {
        changes::mark(self.connections()).await
    }

    async fn changes(&self, after: &ChangeMark, limit: usize) -> Result<Changes, StoreError> {
        changes::changes(self.connections(), after, limit).await
    }

    fn wakes(&self) -> Option<Wakes> {
        Some(self.shared.wakes.receiver())
    }

    async fn cleanup(&self, cutoff: Timestamp) -> Result<u64, StoreError> {
        cleanup::run(self.connections(), cutoff, self.shared.retention).await
    }

    /// Refuses later calls on this store and its clones, waits for those that the server has begun, no longer than
    /// connecting and a reply may take, and closes the connections.
    async fn close(&self) {
        let Shared {
            connections,
            appending,
            tasks,
            ..
        } = &*self.shared;
        connections.close();
        appending.close();
        // The list is whole after every statement, so a poisoned lock is still right.
        tasks.lock().unwrap_or_else(PoisonError::into_inner).clear();
        tokio::join!(connections.closed(), appending.closed());
    }
}

/// Passes on what a channel hears, until the channel is closed.
async fn pass_on(mut heard: Wakes, wakes: WakeSender) {
    while let Some(wake) = heard.next().await {
        wakes.send(wake);
    }
}

#[cfg(test)]
mod tests;
