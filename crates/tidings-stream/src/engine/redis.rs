//! Streams on a Redis server, which many processes share.
//!
//! All keys of an engine begin with `{tidings:stream}`, or another
//! [prefix](RedisOptions::with_prefix):
//!
//! ```text
//! …:stream:<stream>           hash: number of the newest and of the oldest message, retention
//! …:log:<stream>              Redis stream: the messages, up to 16 small ones in an entry, headers as a
//!                             field, payload as its value; <number of the first>-<milliseconds>
//! …:apart:<stream>            zset: messages whose entry went with another message that was deleted
//! …:large:<stream>            zset: sizes of large messages, so that a claim is not too much at once
//! …:key:<birth>:<stream>␟<key>    a publish key, which expires with its window
//! …:group:<stream>␟<group>    hash: a group's cursor and its figures
//! …:lease:<stream>␟<group>    hash: one field per claim of new messages: from, deadline, and a
//!                             character per message that says whether it is settled
//! …:retry:<stream>␟<group>    hash: one field per message that comes again, or is handled in the order of
//!                             keys: when, attempts, who has it
//! …:due:<stream>␟<group>      zset: both of them by time
//! …:held:<stream>␟<group>     zset: the messages of `retry` that are claimed
//! …:keys:<stream>␟<group>     zset: the messages of `retry` by their ordering keys
//! …:member:<stream>␟<group>   zset: consumers by the time until which they are taken to be alive
//! ```
//!
//! A claim of a hundred new messages is one field, and their acknowledgement deletes it; only what
//! fails, or is left over when a claim expires, gets a field of its own. Redis' own consumer groups
//! are not used: they keep an entry per message, and know neither receipts nor delays. Every call is
//! one script, so that it is done whole or not at all; what a claim has found is then read without
//! one. No script's work grows with the length of a stream.
//!
//! # Requirements
//!
//! Redis 7.0 or newer, or Valkey. All keys of one engine lie in one slot of a cluster, so that one
//! engine never has more than one node; give engines different prefixes to spread them. The URL has to
//! lead to the node that has the slot: a redirection is an error, and not followed.
//!
//! Set `maxmemory-policy noeviction`: any other one lets the server remove parts of streams, and opening
//! logs a warning. At `maxmemory` publishing returns [`Error::Full`], while claiming, settling (dead
//! letters included) and trimming continue.
//!
//! # Durability
//!
//! What `Ok` means is up to the server. With `appendonly yes` and `appendfsync always` everything
//! that was accepted survives a crash of the machine. With `appendfsync everysec`, the
//! default of an append-only file, such a crash takes up to about a second of it, and one of the
//! server alone takes nothing. Without an append-only file, everything since the last snapshot is
//! gone, and a failover to a replica can always take what the replica had not got. A group that is
//! lost is [`Error::UnknownGroup`], and ends its consumers.
//!
//! # Time
//!
//! All times are of the server's clock, to the millisecond. Setting that clock moves every deadline
//! with it; the clocks of clients change nothing.
//!
//! # Limits
//!
//! While Redis runs a script it does nothing else. A batch is one script, which takes one microsecond
//! per small message and up to ten per large one: publish much in batches of about a thousand. One of
//! more than 100,000 messages or 256 MiB, which takes about a second, is refused.
//!
//! # Connections
//!
//! An engine has three connections: one to publish and to operate, one to claim and settle, and one
//! that listens for wake-ups. They are made again when they break. A call that was under way then
//! fails, and nothing is tried twice that might be done twice. A user that may not use channels can
//! do everything but listen: consumers poll then, and one log line says so.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
pub use tidings_redis::Config;
use tidings_redis::Server;
use tidings_redis::redis::{Value, cmd};
use tokio_util::task::AbortOnDropHandle;

use super::group_commit::GroupCommit;
use super::lost_claims::LostClaims;
use super::trim_round::trim_all;
use super::{
    ClaimOptions, Claimed, ConsumerKey, Engine, GroupKey, Receipt, Settlement, Wakes, time,
};
use crate::{
    Error, Member, Message, MessageId, NewMessage, PendingMessage, Result, Retention, StartFrom,
    StreamName, StreamStats,
};

mod append;
mod claim;
mod content;
mod eviction;
mod failure;
mod listen;
mod options;
mod pending;
mod scripts;
mod settle;
mod stats;

use append::Appender;
use listen::Listener;
use scripts::{Script, Scripts};

pub use options::RedisOptions;

/// Most consumers, or pending messages, of one script.
const CHUNK: usize = 500;

/// Streams on a Redis server. Clones share it.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use tidings_stream::redis::{Config, RedisEngine, RedisOptions};
/// use tidings_stream::{NewMessage, ServiceConfig, Streams};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::new("redis://127.0.0.1/")?;
/// let engine = RedisEngine::open(config, RedisOptions::default()).await?;
/// let streams = Streams::new(Arc::new(engine), ServiceConfig::default());
/// streams.publish("orders", NewMessage::new("three apples")).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct RedisEngine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    publishing: Arc<Scripts>,
    consuming: Scripts,
    commit: GroupCommit<Appender>,
    listener: Arc<Listener>,
    lost: LostClaims,
    _listening: AbortOnDropHandle<()>,
}

impl RedisEngine {
    /// Connects.
    ///
    /// # Errors
    ///
    /// [`Error::Backend`] if the server cannot be reached or is too old, [`Error::OutcomeUnknown`] if it does not reply;
    /// the call can be repeated. [`Error::InvalidOption`] if an option is outside its range.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which its tasks need.
    pub async fn open(config: Config, options: RedisOptions) -> Result<Self> {
        let root = options.root()?;
        let load = |root| Scripts::load(Server::new(config.clone()), root);
        let publishing = Arc::new(load(Arc::clone(&root)).await?);
        let consuming = load(root).await?;
        eviction::warn(&consuming).await;
        let listener = Arc::<Listener>::default();
        let channel = publishing.key("wake");
        let listening = listen::keep_listening(config, channel, Arc::clone(&listener));
        let appender = Appender::new(Arc::clone(&publishing), Arc::clone(&listener));
        Ok(Self {
            shared: Arc::new(Shared {
                publishing,
                consuming,
                commit: GroupCommit::new(Arc::new(appender)),
                listener,
                lost: LostClaims::default(),
                _listening: AbortOnDropHandle::new(tokio::spawn(listening.boxed())),
            }),
        })
    }

    /// Refuses further calls with [`Error::Closed`], waits for those that are under way, and closes
    /// the connections that they use. Dropping the last clone closes everything, and waits for
    /// nothing.
    pub async fn close(&self) {
        self.shared.publishing.close().await;
        self.shared.consuming.close().await;
    }
}

#[async_trait]
impl Engine for RedisEngine {
    async fn append(
        &self,
        stream: &StreamName,
        messages: Vec<NewMessage>,
        retention: Option<Retention>,
    ) -> Result<Vec<MessageId>> {
        append::check(&messages)?;
        self.shared.commit.append(stream, messages, retention).await
    }

    async fn set_retention(&self, stream: &StreamName, retention: Retention) -> Result<()> {
        let scripts = &self.shared.publishing;
        let mut call = scripts.call(Script::SetRetention);
        call.arg(stream.as_str()).arg(append::birth());
        append::add_retention(&mut call, retention);
        scripts.run(Script::SetRetention, &call).await
    }

    async fn open_group(&self, group: &GroupKey, start: StartFrom) -> Result<()> {
        let scripts = &self.shared.publishing;
        let (kind, place) = start.parts();
        let mut call = scripts.call_for(Script::OpenGroup, group);
        call.arg(append::birth()).arg(kind).arg(place);
        match scripts.run(Script::OpenGroup, &call).await {
            Ok(Value::Nil) => Ok(()),
            Ok(head) => Err(start.is_ahead_of(scripts::read(head)?)),
            // Without room the server refuses the script also where it has nothing to write.
            Err(full @ Error::Full(_)) => {
                let call = scripts.call_for(Script::HasGroup, group);
                if scripts.run(Script::HasGroup, &call).await? {
                    Ok(())
                } else {
                    Err(full)
                }
            }
            Err(error) => Err(error),
        }
    }

    async fn seek(&self, group: &GroupKey, to: StartFrom) -> Result<()> {
        let scripts = &self.shared.publishing;
        let (kind, place) = to.parts();
        let mut call = scripts.call_for(Script::Seek, group);
        call.arg(kind).arg(place);
        match scripts.run(Script::Seek, &call).await? {
            Value::Nil => return Err(Error::UnknownGroup),
            Value::Int(head) => return Err(to.is_ahead_of(head.cast_unsigned())),
            _ => {}
        }
        self.shared.listener.wake_unless_listening(&group.stream);
        Ok(())
    }

    async fn delete_group(&self, group: &GroupKey) -> Result<bool> {
        let scripts = &self.shared.publishing;
        let call = scripts.call_for(Script::DeleteGroup, group);
        scripts.run(Script::DeleteGroup, &call).await
    }

    async fn delete_message(&self, stream: &StreamName, id: MessageId) -> Result<bool> {
        if id.as_u64() > settle::MAX_NUMBER {
            return Ok(false);
        }
        let scripts = &self.shared.publishing;
        let mut call = scripts.call(Script::DeleteMessage);
        call.arg(stream.as_str()).arg(id.as_u64());
        let was_there = scripts.run(Script::DeleteMessage, &call).await?;
        self.shared.listener.wake_unless_listening(stream);
        Ok(was_there)
    }

    async fn delete_stream(&self, stream: &StreamName) -> Result<bool> {
        let scripts = &self.shared.publishing;
        let mut call = scripts.call(Script::DeleteStream);
        call.arg(stream.as_str());
        let deleted = scripts.run(Script::DeleteStream, &call).await?;
        self.shared.listener.wake_unless_listening(stream);
        Ok(deleted)
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
        lost.claim(consuming, number, consumer, max, options).await
    }

    async fn settle(&self, group: &GroupKey, settlements: Arc<[Settlement]>) -> Result<Vec<bool>> {
        let Shared {
            consuming,
            listener,
            ..
        } = &*self.shared;
        let settled = settle::settle(consuming, group, &settlements).await?;
        for stream in settled.wakes(group, &settlements) {
            listener.wake_unless_listening(stream);
        }
        Ok(settled.obeyed)
    }

    async fn extend(
        &self,
        group: &GroupKey,
        receipts: Arc<[Receipt]>,
        visibility: Duration,
    ) -> Result<Vec<bool>> {
        settle::extend(&self.shared.consuming, group, &receipts, visibility).await
    }

    async fn ready(&self, groups: Arc<[GroupKey]>) -> Result<Vec<bool>> {
        let scripts = &self.shared.consuming;
        let mut call = scripts.call(Script::Ready);
        for group in groups.iter() {
            call.arg(group.stream.as_str()).arg(group.group.as_str());
        }
        let reply = scripts.run(Script::Ready, &call).await?;
        scripts::flags(reply, groups.len())
    }

    async fn check_in(&self, consumers: Arc<[ConsumerKey]>, ttl: Duration) -> Result<()> {
        let scripts = &self.shared.consuming;
        for chunk in consumers.chunks(CHUNK) {
            let mut call = scripts.call(Script::CheckIn);
            call.arg(time::millis(ttl));
            for ConsumerKey { group, consumer } in chunk {
                call.arg(group.stream.as_str()).arg(group.group.as_str());
                call.arg(&**consumer);
            }
            scripts.run::<()>(Script::CheckIn, &call).await?;
        }
        Ok(())
    }

    async fn trim(&self) -> Result<u64> {
        let scripts = &*self.shared.publishing;
        let mut bounded = cmd("SMEMBERS");
        bounded.arg(scripts.key("bounded"));
        let streams: Vec<String> = scripts::read(scripts.command(&bounded).await?)?;
        let trimmed = trim_all(streams, |stream| {
            let mut call = scripts.call(Script::Trim);
            call.arg(stream);
            async move { scripts.run::<u64>(Script::Trim, &call).await }
        });
        trimmed.await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<StreamName>> {
        stats::list(&self.shared.publishing, prefix).await
    }

    async fn stats(&self, stream: &StreamName) -> Result<StreamStats> {
        stats::read(&self.shared.publishing, stream).await
    }

    async fn read(
        &self,
        stream: &StreamName,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<Message>> {
        content::page(&self.shared.publishing, stream, after, max).await
    }

    async fn pending(
        &self,
        group: &GroupKey,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<PendingMessage>> {
        pending::page(&self.shared.publishing, group, after, max).await
    }

    async fn members(&self, group: &GroupKey) -> Result<Vec<Member>> {
        let scripts = &self.shared.publishing;
        let call = scripts.call_for(Script::Members, group);
        let members: Option<Vec<(String, bool, u64)>> = scripts.run(Script::Members, &call).await?;
        let members = members.ok_or(Error::UnknownGroup)?.into_iter();
        let mut members: Vec<Member> = members
            .map(|(consumer, is_alive, pending)| Member {
                consumer,
                is_alive,
                pending,
            })
            .collect();
        members.sort_by(|a, b| a.consumer.cmp(&b.consumer));
        Ok(members)
    }

    fn settles_in_transactions(&self) -> bool {
        false
    }

    fn wakes(&self) -> &Wakes {
        self.shared.listener.wakes()
    }
}
