//! Streams on a PostgreSQL database, which many processes share.
//!
//! ```text
//! tidings_stream          one row per stream: its retention, and the lock for appending
//! tidings_stream_message  (stream, number): one index, trimmed from its left
//! tidings_stream_group    one row per group: its counters, and the lock for claiming and settling
//! tidings_stream_lease    one row per claim of new messages: from, to, deadline, a bit per settled one;
//!                         the last one is how far its group has come
//! tidings_stream_retry    one row per message that comes again, or is handled in the order of keys: when,
//!                         attempts, who has it now, and the ordering key that it has or waits for
//!                         (tidings_stream_retry_floor: where looks for those begin)
//! tidings_stream_outbox   what transactions of others have published, until it has its numbers
//! ```
//!
//! A claim of a hundred new messages is one row, and their acknowledgement deletes it; only what
//! fails, or is left over when a claim expires, gets a row of its own. Every call is one statement,
//! which is a transaction of its own: no lock waits for a client, except that [`settle_in`] locks its group until the
//! caller's commit. Calls about that group wait then, and hold no connection. Nothing is set that outlives a
//! transaction, so that sessions can be shared by a pooler. Names are looked up in the search path of
//! the connection, so that one database can have several sets of these tables.
//!
//! # Durability
//!
//! Publishing, and creating, moving or deleting groups and streams, wait for the server's disk, even
//! where its `synchronous_commit` is `off`. Claiming, settling, extending and checking in do not: a
//! crash of the server can undo the last moments of them, which brings messages again and loses none.
//! A dead letter appears in the transaction that ends its message's claim, which waits for the disk.
//!
//! # Order
//!
//! Numbers are taken under the lock of the stream's row until the commit, so that no reader sees
//! a message before an earlier one. Publishers of one process share a transaction: whatever is
//! published to a stream while a batch of it is committed makes the next one. What
//! [`publish_in`] leaves in a transaction of the caller's own takes no lock; it gets its numbers after
//! the commit, from whichever engine is first.
//!
//! # Time
//!
//! All times are of the server's clock, to the millisecond. Setting that clock moves every deadline
//! with it; the clocks of clients change nothing.
//!
//! # Wake-ups
//!
//! One channel carries the names of streams that have something new. It is used after the commit, for
//! all publishes of some milliseconds together: a notification makes the whole server commit one
//! transaction after the other. Where listening is impossible, as behind a pooler that shares
//! sessions, give [`Config::with_listen_url`] a URL that leads to the server, or rely on polling; see
//! also [`PostgresOptions::without_prepared_statements`].
//!
//! # Connections
//!
//! An engine has up to [four connections to publish, four for everything else](PostgresOptions) and
//! one that listens. They are made when they are needed and made again when they break; a call that
//! was under way then fails.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
pub use tidings_postgres::{Config, tokio_postgres};
use tidings_postgres::{Connections, Database, Error as DatabaseError, Sessions, params};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use super::group_commit::GroupCommit;
use super::lost_claims::LostClaims;
use super::trim_round::{CHUNK, Removed, leave_rest, trim_all};
use super::{
    ClaimOptions, Claimed, ConsumerKey, Engine, GroupKey, Receipt, Settlement, Wakes, page, time,
};
use crate::{
    Error, Member, Message, MessageId, NewMessage, PendingMessage, Result, Retention, StartFrom,
    StreamName, StreamStats,
};

mod announce;
mod append;
mod claim;
mod content;
mod failure;
mod held;
mod options;
mod outbox;
mod receipts;
mod rows;
mod schema;
mod settle;
mod stats;

use announce::Announcer;
use append::Appender;
use held::{Groups, Held};
use rows::{get, number, row, rows, text, value};

pub use options::PostgresOptions;
pub use outbox::{notify_in, publish_in};
pub use settle::settle_in;

/// The name of its tables in the list of schemas, and the version that this package makes.
pub const SCHEMA: (&str, usize) = ("tidings_stream", schema::STEPS.len());

/// Streams on a PostgreSQL database, version 14 or later. Clones share it.
///
/// What wakes others, listens to them and takes what [`publish_in`] has left into the streams runs on the runtime that the
/// engine was opened on. After its end, other engines on the database do the last, or none does until one is opened.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use tidings_stream::postgres::{Config, PostgresEngine, PostgresOptions};
/// use tidings_stream::{NewMessage, ServiceConfig, Streams};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::new("postgres://tidings@127.0.0.1/tidings")?;
/// let engine = PostgresEngine::open(config, PostgresOptions::default()).await?;
/// let streams = Streams::new(Arc::new(engine), ServiceConfig::default());
/// streams.publish("orders", NewMessage::new("three apples")).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct PostgresEngine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    publishing: Arc<Connections>,
    consuming: Arc<Connections>,
    commit: GroupCommit<Appender>,
    wakes: Wakes,
    announcer: Announcer,
    /// Notified when the outbox has something.
    outbox: Arc<Notify>,
    lost: LostClaims,
    held: Held,
    /// Announcing, listening, sequencing.
    tasks: [AbortOnDropHandle<()>; 3],
}

impl PostgresEngine {
    /// Opens streams on a database, and creates the tables if they do not exist.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] if the server cannot be reached, does not let this role create tables, or
    /// has tables of a newer version, [`Error::OutcomeUnknown`] if it does not reply. The call can be repeated.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which its tasks need.
    pub async fn open(config: Config, options: PostgresOptions) -> Result<Self> {
        Self::boxed_open(config, options).await
    }

    /// The body of an `async fn` is compiled in each crate that awaits it; a box, and the tasks that begin in it, in this one.
    fn boxed_open(
        config: Config,
        PostgresOptions {
            publish_connections,
            consume_connections,
            prepares,
        }: PostgresOptions,
    ) -> BoxFuture<'static, Result<Self>> {
        async move {
            let database = Database::new(config.clone());
            database.migrate(SCHEMA.0, &schema::STEPS).await?;
            let mut sessions = Sessions::of(&database).await?;
            if prepares {
                sessions = sessions.with_prepared_statements();
            }
            let consuming = Connections::new(database, consume_connections, sessions);
            let consuming = Arc::new(consuming);
            let publishing = Arc::new(Connections::new(
                Database::new(config.clone()),
                publish_connections,
                sessions,
            ));
            let channel = announce::channel(&consuming).await?;

            let held = Held::new(config.reply_limit(), consume_connections);
            let wakes = Wakes::default();
            let announcer = Announcer::new();
            let outbox = Arc::<Notify>::default();
            let announcing = announcer
                .clone()
                .run(Arc::clone(&consuming), channel.clone());
            let sequencing = outbox::keep_emptying(
                Arc::clone(&outbox),
                Arc::clone(&publishing),
                wakes.clone(),
                announcer.clone(),
            );
            let listening = announce::keep_listening(
                config,
                channel,
                wakes.clone(),
                Arc::clone(&outbox),
                announcer.sender(),
            );
            let appender = Appender::new(Arc::clone(&publishing), wakes.clone(), announcer.clone());
            Ok(Self {
                shared: Arc::new(Shared {
                    publishing,
                    consuming,
                    commit: GroupCommit::new(Arc::new(appender)),
                    wakes,
                    announcer,
                    outbox,
                    lost: LostClaims::default(),
                    held,
                    tasks: [
                        AbortOnDropHandle::new(tokio::spawn(announcing.boxed())),
                        AbortOnDropHandle::new(tokio::spawn(listening.boxed())),
                        AbortOnDropHandle::new(tokio::spawn(sequencing.boxed())),
                    ],
                }),
            })
        }
        .boxed()
    }

    /// Refuses further calls with [`Error::Closed`], waits for those that are under way, and closes
    /// the connections. Dropping the last clone closes them, too, and waits for nothing.
    pub async fn close(&self) {
        let Shared {
            publishing,
            consuming,
            tasks,
            ..
        } = &*self.shared;
        publishing.close();
        consuming.close();
        tokio::join!(publishing.closed(), consuming.closed());
        tasks.iter().for_each(AbortOnDropHandle::abort);
    }

    /// Removes what is left of a deleted stream or group.
    async fn remove_hidden(&self, stream_id: i64) -> Result<()> {
        const REMOVE: &str = "SELECT tidings_stream_remove_hidden($1, $2)";
        let parameters = params![stream_id, CHUNK.cast_signed()];
        while !value(&self.shared.consuming, REMOVE, parameters).await? {}
        Ok(())
    }

    /// The id of a group in the database.
    async fn find(&self, group: &GroupKey) -> Result<i64> {
        const FIND: &str = "SELECT group_id FROM tidings_stream_group g
            JOIN tidings_stream s USING (stream_id) WHERE s.name = $1 AND g.name = $2";
        let parameters = params![group.stream.as_str(), group.group.as_str()];
        let row = row(&self.shared.consuming, FIND, parameters).await?;
        get(&row.ok_or(Error::UnknownGroup)?, 0)
    }

    /// For calls that lock groups.
    fn groups<'a>(&'a self, connections: &'a Connections) -> Groups<'a> {
        Groups {
            connections,
            held: &self.shared.held,
        }
    }

    /// Wakes the consumers of a stream, in this process and others.
    fn announce(&self, stream: &StreamName) {
        self.shared.wakes.wake(stream);
        self.shared.announcer.announce(stream);
    }
}

#[async_trait]
impl Engine for PostgresEngine {
    async fn append(
        &self,
        stream: &StreamName,
        messages: Vec<NewMessage>,
        retention: Option<Retention>,
    ) -> Result<Vec<MessageId>> {
        self.shared.commit.append(stream, messages, retention).await
    }

    async fn set_retention(&self, stream: &StreamName, retention: Retention) -> Result<()> {
        const SET: &str = "SELECT tidings_stream_set_retention($1, $2, $3, $4)";
        let (max_len, max_age) = retention.bounds();
        let parameters = params![stream.as_str(), max_len, max_age, retention.trim_pending];
        rows(&self.shared.publishing, SET, parameters).await?;
        // What is trimmed may have kept an ordering key from others.
        self.announce(stream);
        Ok(())
    }

    async fn open_group(&self, key: &GroupKey, start: StartFrom) -> Result<()> {
        const OPEN: &str = "SELECT tidings_stream_open_group($1, $2, $3, $4)";
        let (kind, place) = start.parts();
        let parameters = params![key.stream.as_str(), key.group.as_str(), kind, place];
        match value::<Option<i64>>(&self.shared.publishing, OPEN, parameters).await? {
            None => Ok(()),
            Some(newest) => Err(start.is_ahead_of(newest.cast_unsigned())),
        }
    }

    async fn seek(&self, key: &GroupKey, to: StartFrom) -> Result<()> {
        const SEEK: &str = "SELECT tidings_stream_seek($1, $2, $3, $4)";
        let (kind, place) = to.parts();
        let parameters = params![key.stream.as_str(), key.group.as_str(), kind, place];
        let groups = self.groups(&self.shared.publishing);
        let row = groups.row(key, SEEK, parameters).await?;
        if let Some(newest) = get::<Option<i64>>(&row.ok_or(Error::UnknownGroup)?, 0)? {
            return Err(to.is_ahead_of(newest.cast_unsigned()));
        }
        self.announce(&key.stream);
        Ok(())
    }

    async fn delete_group(&self, key: &GroupKey) -> Result<bool> {
        const HIDE: &str = "SELECT tidings_stream_hide_group($1, $2)";
        let parameters = params![key.stream.as_str(), key.group.as_str()];
        let groups = self.groups(&self.shared.publishing);
        let Some(stream_id) = groups.value(key, HIDE, parameters).await? else {
            return Ok(false);
        };
        leave_rest(&key.stream, self.remove_hidden(stream_id).await);
        Ok(true)
    }

    async fn delete_message(&self, stream: &StreamName, id: MessageId) -> Result<bool> {
        const DELETE: &str = "SELECT tidings_stream_delete_message($1, $2)";
        let Ok(number) = i64::try_from(id.as_u64()) else {
            return Ok(false);
        };
        let parameters = params![stream.as_str(), number];
        let groups = self.groups(&self.shared.publishing);
        let row = groups.row_of_all(stream, DELETE, parameters).await?;
        let was_there = get(&row.ok_or(DatabaseError::NoRow)?, 0)?;
        self.announce(stream);
        Ok(was_there)
    }

    async fn delete_stream(&self, stream: &StreamName) -> Result<bool> {
        const HIDE: &str = "SELECT tidings_stream_hide($1)";
        let parameters = params![stream.as_str()];
        let Some(stream_id) = value(&self.shared.publishing, HIDE, parameters).await? else {
            return Ok(false);
        };
        self.announce(stream);
        leave_rest(stream, self.remove_hidden(stream_id).await);
        Ok(true)
    }

    async fn claim(
        &self,
        consumer: &ConsumerKey,
        max: usize,
        options: ClaimOptions,
    ) -> Result<Claimed> {
        let Shared {
            consuming, lost, ..
        } = &*self.shared;
        let number = claim::draw_number();
        lost.claim(&self.groups(consuming), number, consumer, max, options)
            .await
    }

    async fn settle(&self, key: &GroupKey, settlements: Arc<[Settlement]>) -> Result<Vec<bool>> {
        let settled =
            settle::settle(self.groups(&self.shared.consuming), key, &settlements).await?;
        for stream in settled.wakes(key, &settlements) {
            self.announce(stream);
        }
        Ok(settled.obeyed)
    }

    async fn extend(
        &self,
        key: &GroupKey,
        receipts: Arc<[Receipt]>,
        visibility: Duration,
    ) -> Result<Vec<bool>> {
        settle::extend(
            self.groups(&self.shared.consuming),
            key,
            &receipts,
            visibility,
        )
        .await
    }

    async fn ready(&self, groups: Arc<[GroupKey]>) -> Result<Vec<bool>> {
        const READY: &str = "SELECT tidings_stream_ready($1, $2)";
        let (streams, names) = names(groups.iter());
        value(&self.shared.consuming, READY, params![streams, names]).await
    }

    async fn check_in(&self, consumers: Arc<[ConsumerKey]>, ttl: Duration) -> Result<()> {
        const CHECK_IN: &str = "SELECT tidings_stream_check_in($1, $2, $3, $4)";
        let (streams, groups) = names(consumers.iter().map(|it| &it.group));
        let consumers: Vec<&str> = consumers.iter().map(|it| &*it.consumer).collect();
        let parameters = params![streams, groups, consumers, time::millis(ttl)];
        rows(&self.shared.consuming, CHECK_IN, parameters).await?;
        Ok(())
    }

    async fn trim(&self) -> Result<u64> {
        const HIDDEN: &str = "SELECT ARRAY(SELECT stream_id FROM tidings_stream
            WHERE name >= E'\\x01' AND name < E'\\x02')";
        const FORGET_KEYS: &str = "SELECT tidings_stream_forget_keys($1)";
        // Except those that are checking in.
        const FORGET_MEMBERS: &str =
            "DELETE FROM tidings_stream_member WHERE (group_id, consumer) IN (
            SELECT group_id, consumer FROM tidings_stream_member
            WHERE expires <= tidings_stream_now() ORDER BY 1, 2 FOR UPDATE SKIP LOCKED)";
        const BOUNDED: &str = "SELECT stream_id, name FROM tidings_stream
            WHERE max_len IS NOT NULL OR max_age IS NOT NULL";
        const TRIM: &str = "SELECT removed, has_more FROM tidings_stream_trim($1, $2)";
        let connections = &*self.shared.consuming;
        let chunk = CHUNK.cast_signed();
        let hidden: Vec<i64> = value(connections, HIDDEN, &[]).await?;
        // What fails in one part keeps the round from no other.
        let removed = trim_all(hidden, |stream_id| {
            let removing = self.remove_hidden(*stream_id);
            async { removing.await.map(|()| 0_u64) }
        });
        let removed = removed.await;
        let forgotten = async {
            while value::<i64>(connections, FORGET_KEYS, params![chunk]).await? >= chunk {}
            Ok(())
        };
        let forgotten: Result<()> = forgotten.await;
        let members = rows(connections, FORGET_MEMBERS, &[]).await;
        let bounded = rows(connections, BOUNDED, &[]).await?;
        let trimmed = trim_all(bounded, |bounded| {
            let stream = get::<i64>(bounded, 0).and_then(|id| Ok((id, get::<String>(bounded, 1)?)));
            async move {
                let (stream_id, name) = stream?;
                let row = row(connections, TRIM, params![stream_id, chunk]).await?;
                let row = row.ok_or(DatabaseError::NoRow)?;
                let removed = Removed {
                    messages: number(&row, 0)?,
                    has_more: get(&row, 1)?,
                };
                // What was trimmed may have kept an ordering key from others. What is out of sight has no such name.
                if removed.messages > 0
                    && let Ok(stream) = name.parse()
                {
                    self.announce(&stream);
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

    async fn list(&self, prefix: &str) -> Result<Vec<StreamName>> {
        stats::list(&self.shared.consuming, prefix).await
    }

    async fn stats(&self, stream: &StreamName) -> Result<StreamStats> {
        stats::read(&self.shared.consuming, stream).await
    }

    async fn read(
        &self,
        stream: &StreamName,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<Message>> {
        content::page(&self.shared.consuming, stream, after, max).await
    }

    async fn pending(
        &self,
        key: &GroupKey,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<PendingMessage>> {
        const PAGE: &str = "SELECT number, attempts, consumer, age, due_in, last_error
            FROM tidings_stream_pending($1, $2, $3)";
        let (after, max) = page(after, max);
        let parameters = params![self.find(key).await?, after, max];
        let page = rows(&self.shared.consuming, PAGE, parameters).await?;
        let pending = page.iter().map(|row| {
            Ok(PendingMessage {
                id: MessageId::from_u64(number(row, 0)?),
                attempts: get::<i32>(row, 1)?.cast_unsigned(),
                consumer: get(row, 2)?,
                age: time::duration(get(row, 3)?),
                due_in: time::duration(get(row, 4)?),
                last_error: text(row, 5)?,
            })
        });
        pending.collect()
    }

    async fn members(&self, key: &GroupKey) -> Result<Vec<Member>> {
        const LIST: &str = "SELECT consumer, is_alive, pending FROM tidings_stream_members($1)";
        let group_id = self.find(key).await?;
        let members = rows(&self.shared.consuming, LIST, params![group_id]).await?;
        let members = members.iter().map(|row| {
            Ok(Member {
                consumer: get(row, 0)?,
                is_alive: get(row, 1)?,
                pending: number(row, 2)?,
            })
        });
        members.collect()
    }

    fn wakes(&self) -> &Wakes {
        &self.shared.wakes
    }

    /// The messages are in the outbox: consumers are woken once they have their numbers.
    fn wake(&self, _: &StreamName) {
        self.shared.outbox.notify_one();
    }
}

/// The names of groups as columns.
fn names<'a>(groups: impl Iterator<Item = &'a GroupKey>) -> (Vec<&'a str>, Vec<&'a str>) {
    let names = groups.map(|key| (key.stream.as_str(), key.group.as_str()));
    names.unzip()
}
