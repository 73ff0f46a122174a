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
//! which is a transaction of its own: no lock waits for a client. Nothing is set that outlives a
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
//! # Messages that cannot be read
//!
//! A claim whose messages cannot be read is handed back without counting an attempt, and the next one
//! takes half as many. A message that cannot even be read alone, because the connection is too slow
//! for it or its row is broken, is held back with a line in the log, for a second at first and up to about
//! an hour later, while later messages continue. It is never dead-lettered for that: no handler has seen
//! it, and a server that is slow for a while looks the same.
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
pub use tidings_postgres::{Config, tokio_postgres};
use tidings_postgres::{Connections, Database, Sessions};
use tokio_util::task::AbortOnDropHandle;

use super::group_commit::GroupCommit;
use super::lost_claims::LostClaims;
use super::{ClaimOptions, Claimed, ConsumerKey, Engine, GroupKey, Receipt, Settlement, Wakes};
use crate::{
    Error, Member, Message, MessageId, NewMessage, PendingMessage, Retention, StartFrom,
    StreamName, StreamStats,
};

mod announce;
mod append;
mod claim;
mod content;
mod delete;
mod failure;
mod group;
mod listen;
mod member;
mod options;
mod outbox;
mod pending;
mod receipts;
mod schema;
mod settle;
mod stats;
mod trim;

use announce::Announcer;
use append::Appender;
use outbox::Sequencer;

pub use options::PostgresOptions;
pub use outbox::{notify_in, publish_in};
pub use settle::settle_in;

/// Streams on a PostgreSQL database, version 14 or later. Clones share it.
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
    sequencer: Sequencer,
    lost: LostClaims,
    /// Announcing, listening, sequencing.
    _tasks: [AbortOnDropHandle<()>; 3],
}

impl PostgresEngine {
    /// Opens streams on a database, and creates the tables if they do not exist.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] if the server cannot be reached, does not let this role create tables, or
    /// has tables of a newer version. The call can be repeated.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which its tasks need.
    pub async fn open(config: Config, options: PostgresOptions) -> Result<Self, Error> {
        let database = Database::new(config.clone());
        database.migrate("tidings_stream", &schema::steps()).await?;
        let mut sessions = Sessions::of(&database).await?;
        if options.prepares {
            sessions = sessions.with_prepared_statements();
        }
        let consuming = Connections::new(database, options.consume_connections, sessions);
        let consuming = Arc::new(consuming);
        let publishing = Arc::new(Connections::new(
            Database::new(config.clone()),
            options.publish_connections,
            sessions,
        ));
        let channel = announce::channel(&consuming).await?;

        let wakes = Wakes::default();
        let (announcer, announcing) = announce::announcer(Arc::clone(&consuming), channel.clone());
        let (sequencer, sequencing) =
            outbox::sequencer(Arc::clone(&publishing), wakes.clone(), announcer.clone());
        let listening = listen::keep_listening(
            config,
            channel,
            wakes.clone(),
            sequencer.clone(),
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
                sequencer,
                lost: LostClaims::default(),
                _tasks: [
                    AbortOnDropHandle::new(tokio::spawn(announcing)),
                    AbortOnDropHandle::new(tokio::spawn(listening)),
                    AbortOnDropHandle::new(tokio::spawn(sequencing)),
                ],
            }),
        })
    }

    /// Refuses further calls with [`Error::Closed`], waits for those that are under way, and closes
    /// the connections. Dropping the last clone closes them, too, and waits for nothing.
    pub async fn close(&self) {
        let Shared {
            publishing,
            consuming,
            ..
        } = &*self.shared;
        publishing.close();
        consuming.close();
        tokio::join!(publishing.closed(), consuming.closed());
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
    ) -> Result<Vec<MessageId>, Error> {
        self.shared.commit.append(stream, messages, retention).await
    }

    async fn set_retention(&self, stream: &StreamName, retention: Retention) -> Result<(), Error> {
        append::set_retention(&self.shared.publishing, stream, retention).await
    }

    async fn open_group(&self, key: &GroupKey, start: StartFrom) -> Result<(), Error> {
        group::open(&self.shared.publishing, key, start).await
    }

    async fn seek(&self, key: &GroupKey, to: StartFrom) -> Result<(), Error> {
        group::seek(&self.shared.publishing, key, to).await?;
        self.announce(&key.stream);
        Ok(())
    }

    async fn delete_group(&self, key: &GroupKey) -> Result<bool, Error> {
        group::delete(&self.shared.publishing, key).await
    }

    async fn delete_message(&self, stream: &StreamName, id: MessageId) -> Result<bool, Error> {
        let was_there = delete::delete_message(&self.shared.publishing, stream, id).await?;
        self.announce(stream);
        Ok(was_there)
    }

    async fn delete_stream(&self, stream: &StreamName) -> Result<bool, Error> {
        let connections = &self.shared.publishing;
        let Some(stream_id) = delete::hide(connections, stream).await? else {
            return Ok(false);
        };
        self.announce(stream);
        delete::remove_hidden(connections, stream_id).await?;
        Ok(true)
    }

    async fn claim(
        &self,
        consumer: &ConsumerKey,
        max: usize,
        options: ClaimOptions,
    ) -> Result<Claimed, Error> {
        let Shared {
            consuming, lost, ..
        } = &*self.shared;
        let number = claim::draw_number();
        lost.claim(&**consuming, number, consumer, max, options)
            .await
    }

    async fn settle(
        &self,
        key: &GroupKey,
        settlements: Arc<[Settlement]>,
    ) -> Result<Vec<bool>, Error> {
        let settled = settle::settle(&self.shared.consuming, key, &settlements).await?;
        if settled.has_returned {
            self.announce(&key.stream);
        }
        for dead_letters in &settled.moved_to {
            self.announce(dead_letters);
        }
        Ok(settled.obeyed)
    }

    async fn extend(
        &self,
        key: &GroupKey,
        receipts: Arc<[Receipt]>,
        visibility: Duration,
    ) -> Result<Vec<bool>, Error> {
        settle::extend(&self.shared.consuming, key, &receipts, visibility).await
    }

    async fn ready(&self, groups: Arc<[GroupKey]>) -> Result<Vec<bool>, Error> {
        claim::ready(&self.shared.consuming, &groups).await
    }

    async fn check_in(&self, consumers: Arc<[ConsumerKey]>, ttl: Duration) -> Result<(), Error> {
        member::check_in(&self.shared.consuming, &consumers, ttl).await
    }

    async fn trim(&self) -> Result<u64, Error> {
        trim::trim_all(&self.shared.consuming).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<StreamName>, Error> {
        stats::list(&self.shared.consuming, prefix).await
    }

    async fn stats(&self, stream: &StreamName) -> Result<StreamStats, Error> {
        stats::read(&self.shared.consuming, stream).await
    }

    async fn read(
        &self,
        stream: &StreamName,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<Message>, Error> {
        content::page(&self.shared.consuming, stream, after, max).await
    }

    async fn pending(
        &self,
        key: &GroupKey,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<PendingMessage>, Error> {
        pending::page(&self.shared.consuming, key, after, max).await
    }

    async fn members(&self, key: &GroupKey) -> Result<Vec<Member>, Error> {
        member::list(&self.shared.consuming, key).await
    }

    fn wakes(&self) -> &Wakes {
        &self.shared.wakes
    }

    /// The messages are in the outbox: consumers are woken once they have their numbers.
    fn wake(&self, _: &StreamName) {
        self.shared.sequencer.look();
    }
}
