//! Streams on a SQLite file.
//!
//! ```text
//! stream          one row per stream: its newest and oldest number, its retention
//! stream_message  key = stream << 40 | number: one B-tree, no other index, trimmed from its left
//! stream_group    a group's cursor, and the number of its last claim
//! stream_lease    one row per claim of new messages: from, to, deadline, a bit per settled one
//! stream_retry    one row per message that comes again, or is handled in the order of keys: when,
//!                 attempts, who has it now, and the ordering key that it has or waits for
//! ```
//!
//! A claim of a hundred new messages is one row, and their acknowledgement deletes it; only what
//! fails, or is left over when a claim expires, gets a row of its own. Publishing and moving to another
//! stream wait for the disk. Claiming and other settlements survive a crash of the process and may be undone
//! by a loss of power, which brings messages again and loses none.
//!
//! # Time
//!
//! Deadlines and delays are counted on the monotonic clock: the wall clock is read once per process
//! and moved on by it, so setting the clock neither brings every claim back at once nor makes one
//! last for ever. Processes that share a file should not be started on both sides of such a jump.
//! Retention by age, and [`Message::created_at`](crate::Message::created_at), follow the wall clock.
//!
//! # Restarts
//!
//! The file `<database>.streams.lock` shows an engine whether another one is alive on the same
//! database, in this process or another. When it is alone, whatever is claimed belongs to a run that
//! has ended, and comes again at once. When it is not, or when the disk has no room to note that, claims
//! come again as they expire.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Transaction;
use tidings_sqlite::{Database, Liveness};

use super::trim_round::{leave_rest, trim_all};
use super::{
    ClaimOptions, Claimed, ConsumerKey, Engine, GroupKey, Outcome, Receipt, Settlement, Wakes, time,
};
use crate::{
    Error, Member, Message, MessageId, NewMessage, PendingMessage, Retention, StartFrom,
    StreamName, StreamStats, message,
};

mod append;
mod claim;
mod clock;
mod content;
mod delete;
mod failure;
mod group;
mod lease;
mod member;
mod pending;
pub(super) mod schema;
mod settle;
mod stats;
mod trim;
mod undelivered;

pub use settle::settle_in;
use undelivered::Undelivered;

/// Part of the name of the lock file.
const KIND: &str = "streams";

/// Streams on a SQLite file, beside whatever else lives there. Clones share it.
#[derive(Debug, Clone)]
pub struct SqliteEngine {
    database: Database,
    wakes: Wakes,
    _liveness: Arc<Liveness>,
}

impl SqliteEngine {
    /// Creates the tables if need be, and brings back what an earlier run had claimed. Where the disk has no
    /// room for that, it comes again as its claims expire.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] when the file was written by a newer version or the database fails, [`Error::Full`] when there
    /// is no room for the tables, [`Error::Closed`] when the database is closed.
    pub async fn open(database: Database) -> Result<Self, Error> {
        database.migrate(schema::COMPONENT, schema::STEPS).await?;
        let liveness = match Liveness::register(&database, KIND, lease::bring_back_all).await {
            // A process must be able to start on a full disk.
            Err(error @ Error::Full(_)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "no room to bring back what an earlier run had claimed, claims wait until they expire"
                );
                let leave = |_: &Transaction<'_>| Ok::<(), Error>(());
                Liveness::register(&database, KIND, leave).await?
            }
            registered => registered?,
        };
        Ok(Self {
            database,
            wakes: Wakes::default(),
            _liveness: Arc::new(liveness),
        })
    }
}

impl SqliteEngine {
    /// Removes what is out of sight, in short transactions, so that publishers get in between.
    async fn remove_hidden(&self, stream_id: i64) -> Result<(), Error> {
        while !self
            .database
            .write_relaxed(move |tx| delete::remove_chunk(tx, stream_id))
            .await?
        {}
        Ok(())
    }
}

/// Appends messages inside a transaction of the caller's own: they exist once it commits, and never
/// if it does not. Returns their ids.
///
/// The stream's retention stays as it was. Call [`Streams::wake`](crate::Streams::wake) after the
/// commit; without it the messages are found at the next poll.
///
/// # Errors
///
/// [`Error::TooLarge`] and [`Error::InvalidOption`] for a message, [`Error::Full`] or [`Error::Backend`] when SQLite fails. Roll
/// back then.
pub fn publish_in(
    transaction: &Transaction<'_>,
    stream: &StreamName,
    messages: &[NewMessage],
) -> Result<Vec<MessageId>, Error> {
    message::check_batch(messages)?;
    if messages.is_empty() {
        return Ok(Vec::new());
    }
    Ok(append::append(transaction, stream, messages)?.ids)
}

#[async_trait]
impl Engine for SqliteEngine {
    fn file(&self) -> Option<&Path> {
        Some(self.database.path())
    }

    async fn append(
        &self,
        stream: &StreamName,
        messages: Vec<NewMessage>,
        retention: Option<Retention>,
    ) -> Result<Vec<MessageId>, Error> {
        let name = stream.clone();
        let ids = self
            .database
            .write(move |tx| append::append_and_trim(tx, &name, &messages, retention))
            .await?;
        self.wakes.wake(stream);
        Ok(ids)
    }

    async fn set_retention(&self, stream: &StreamName, retention: Retention) -> Result<(), Error> {
        let name = stream.clone();
        self.database
            .write(move |tx| append::set_retention(tx, &name, retention))
            .await?;
        // What is trimmed may have had an ordering key.
        self.wakes.wake(stream);
        Ok(())
    }

    async fn open_group(&self, key: &GroupKey, start: StartFrom) -> Result<(), Error> {
        let key = key.clone();
        self.database
            .write(move |tx| group::open(tx, &key, start))
            .await
    }

    async fn seek(&self, key: &GroupKey, to: StartFrom) -> Result<(), Error> {
        let group = key.clone();
        let hidden = self
            .database
            .write(move |tx| group::seek(tx, &group, to))
            .await?;
        self.wakes.wake(&key.stream);
        leave_rest(&key.stream, self.remove_hidden(hidden).await);
        Ok(())
    }

    async fn delete_group(&self, key: &GroupKey) -> Result<bool, Error> {
        let group = key.clone();
        let hidden = self
            .database
            .write(move |tx| delete::hide_group_by_key(tx, &group))
            .await?;
        let Some(stream_id) = hidden else {
            return Ok(false);
        };
        leave_rest(&key.stream, self.remove_hidden(stream_id).await);
        Ok(true)
    }

    async fn delete_message(&self, stream: &StreamName, id: MessageId) -> Result<bool, Error> {
        let name = stream.clone();
        let deleting = move |tx: &Transaction<'_>| delete::delete_message(tx, &name, id);
        let was_there = self.database.write(deleting).await?;
        self.wakes.wake(stream);
        Ok(was_there)
    }

    async fn delete_stream(&self, stream: &StreamName) -> Result<bool, Error> {
        let name = stream.clone();
        let deleted = self
            .database
            .write(move |tx| delete::hide(tx, &name))
            .await?;
        let Some(stream_id) = deleted else {
            return Ok(false);
        };
        self.wakes.wake(stream);
        leave_rest(stream, self.remove_hidden(stream_id).await);
        Ok(true)
    }

    async fn claim(
        &self,
        consumer: &ConsumerKey,
        max: usize,
        options: ClaimOptions,
    ) -> Result<Claimed, Error> {
        let undelivered = Undelivered::new(&self.database, &self.wakes, &consumer.group);
        let taken = Arc::clone(&undelivered.taken);
        let consumer = consumer.clone();
        let claiming = self.database.write_relaxed(move |tx| {
            let claimed = claim::claim(tx, &consumer, max, options)?;
            *taken.lock() = claimed.messages.iter().map(|it| it.receipt).collect();
            Ok(claimed)
        });
        let claimed = claiming.await;
        undelivered.delivered();
        claimed
    }

    async fn settle(
        &self,
        key: &GroupKey,
        settlements: Arc<[Settlement]>,
    ) -> Result<Vec<bool>, Error> {
        // A dead letter is a publish: its id must not be given to another one after a loss of power.
        let publishes = settlements
            .iter()
            .any(|it| matches!(it.outcome, Outcome::Dead { .. }));
        let (group, ended) = (key.clone(), Arc::clone(&settlements));
        let settle = move |tx: &Transaction<'_>| settle::settle(tx, &group, &ended);
        let settled = if publishes {
            self.database.write(settle).await?
        } else {
            self.database.write_relaxed(settle).await?
        };
        for stream in settled.wakes(key, &settlements) {
            self.wakes.wake(stream);
        }
        Ok(settled.obeyed)
    }

    async fn extend(
        &self,
        key: &GroupKey,
        receipts: Arc<[Receipt]>,
        visibility: Duration,
    ) -> Result<Vec<bool>, Error> {
        let key = key.clone();
        let visibility = time::millis(visibility);
        self.database
            .write_relaxed(move |tx| settle::extend(tx, &key, &receipts, visibility))
            .await
    }

    async fn ready(&self, groups: Arc<[GroupKey]>) -> Result<Vec<bool>, Error> {
        self.database
            .read(move |connection| {
                let is_ready = |key| pending::is_ready(connection, key);
                groups.iter().map(is_ready).collect()
            })
            .await
    }

    async fn check_in(&self, consumers: Arc<[ConsumerKey]>, ttl: Duration) -> Result<(), Error> {
        let ttl = time::millis(ttl);
        self.database
            .write_relaxed(move |tx| member::check_in(tx, &consumers, ttl))
            .await
    }

    async fn trim(&self) -> Result<u64, Error> {
        let hidden = self.database.read(delete::hidden).await?;
        // What fails in one part keeps the round from no other.
        let removed = trim_all(hidden, |stream_id| {
            let removing = self.remove_hidden(*stream_id);
            async { removing.await.map(|()| 0_u64) }
        });
        let removed = removed.await;
        let forget = |tx: &Transaction<'_>| append::forget_expired_keys(tx, trim::CHUNK);
        let forgotten = async {
            while self.database.write_relaxed(forget).await? >= trim::CHUNK {}
            Ok(())
        };
        let forgotten: Result<(), Error> = forgotten.await;
        let members = self.database.write_relaxed(member::forget_the_gone).await;
        let bounded = self.database.read(trim::bounded_streams).await?;
        let trimmed = trim_all(bounded, |(stream_id, name)| {
            let (stream_id, name) = (*stream_id, name.clone());
            let trim = move |tx: &Transaction<'_>| trim::trim_by_id(tx, stream_id);
            async move {
                let removed = self.database.write_relaxed(trim).await?;
                if removed > 0 {
                    self.wakes.wake(&name);
                }
                Ok(removed)
            }
        });
        let trimmed = trimmed.await;
        removed?;
        forgotten?;
        members?;
        trimmed
    }

    async fn list(&self, prefix: &str) -> Result<Vec<StreamName>, Error> {
        let prefix = prefix.to_owned();
        self.database
            .read(move |connection| stats::list(connection, &prefix))
            .await
    }

    async fn stats(&self, stream: &StreamName) -> Result<StreamStats, Error> {
        let stream = stream.clone();
        self.database
            .read(move |connection| stats::read(connection, &stream))
            .await
    }

    async fn read(
        &self,
        stream: &StreamName,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<Message>, Error> {
        let stream = stream.clone();
        self.database
            .read(move |connection| content::page(connection, &stream, after, max))
            .await
    }

    async fn pending(
        &self,
        key: &GroupKey,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<PendingMessage>, Error> {
        let key = key.clone();
        self.database
            .read(move |connection| pending::page(connection, &key, after, max))
            .await
    }

    async fn members(&self, key: &GroupKey) -> Result<Vec<Member>, Error> {
        let key = key.clone();
        self.database
            .read(move |connection| member::list(connection, &key))
            .await
    }

    fn wakes(&self) -> &Wakes {
        &self.wakes
    }
}

#[cfg(test)]
mod tests;
