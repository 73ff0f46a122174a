//! The store on a Redis server, which many instances share.
//!
//! All keys begin with `{tidings:notify}`, or another [prefix](RedisOptions::with_prefix):
//!
//! ```text
//! …:log:<user>     hash: epoch, first and top number, how far it was delivered, seen and read, revision
//! …:event:<user>   stream: the events, by their number
//! …:state:<user>   hash: events that are not as all others, and when each was read and archived
//! …:row:<user>     zset: their numbers
//! …:open:<user>    zset: those of them that are unread and in the inbox
//! …:mark:<user>    zset: up to which number all was read, and when
//! …:keyed:<user>   hash: the events of the inbox that have a key
//! …:changed        zset: users by the number of their newest change
//! …:oldest         zset: users by the time when the oldest event that is kept was stored
//! …:meta           hash: the number of the newest change
//! ```
//!
//! Every call is one script, so that it is done whole or not at all, for any number of users; an inbox
//! that is filtered takes several. Counts are counted, not kept: those of what has a row of its own are
//! subtracted from the length of the log.
//!
//! # Cluster
//!
//! All keys of one store lie in one slot, because an append for many users is all or nothing, and because
//! the sweep must miss no change. So one store never has more than one node; give stores different
//! prefixes to spread users over them. The URL has to lead to the node that has the slot: a redirection is
//! an error, and not followed.
//!
//! # Durability
//!
//! What `Ok` means is up to the server. With `appendonly yes` and `appendfsync always` everything that was
//! accepted survives a crash of the machine; with `everysec`, the default of an append-only file, up to
//! about a second is gone; without such a file, everything since the last snapshot. A failover can always
//! take what the replica had not got.
//!
//! Whether something is gone cannot be known, so it is not assumed that nothing is: the first append to a
//! log after a restart or a failover begins another epoch, and sweeps begin anew. A reader with an older
//! cursor gets a gap, and then what is kept. Both are noticed by the server's replication id, which also
//! changes when a server gets its first replica: that costs such a gap as well. Where a restart loses nothing and there is no failover, say
//! so by [`RedisOptions::with_durable_server`]. Set `maxmemory-policy noeviction`: any other one lets the
//! server remove parts of logs.
//!
//! # Retention
//!
//! The newest [events of each user](RedisOptions::with_max_events_per_user) are kept, and
//! [`cleanup`](crate::Store::cleanup) removes what is too old.
//!
//! # Connections
//!
//! Two, whatever the number of streams: one for calls, one that listens for wake-ups, which are published
//! by the scripts. They are made again when they break.

mod inbox;
mod listen;
mod options;
mod reply;
mod scripts;
mod wakes;

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use jiff::Timestamp;
pub use tidings_redis::Config;
use tidings_redis::Server;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::{check_drafts, message};
use crate::{
    ChangeMark, Changes, Draft, Epoch, Event, EventId, Head, InboxAction, InboxChange, InboxPage,
    InboxQuery, InboxUpdate, LogChange, MAX_PAGE_BYTES, Page, Store, StoreError, UserId,
    WakeSender, Wakes,
};
use listen::keep_listening;
use reply::{HeadReply, PageReply};
use scripts::{Script, Scripts};

pub use options::RedisOptions;
pub use wakes::RedisWakes;

/// Hints that a reader may fall behind.
const WAKES: usize = 1024;

/// Numbers are exact in scripts up to here.
const MAX_NUMBER: u64 = 1 << 52;

/// Keeps the logs on a Redis server, 7.0 or newer, or Valkey. Clones share the store.
///
/// What listens to the wake-ups of others runs on the runtime that the store was opened on. After its end, only sweeps find
/// what others have changed.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use tidings_notify::Notifier;
/// use tidings_notify::redis::{Config, RedisOptions, RedisStore};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::new("redis://127.0.0.1/")?;
/// let store = RedisStore::open(config, RedisOptions::default()).await?;
/// let notifier = Notifier::new(Arc::new(store));
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct RedisStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    scripts: Scripts,
    max_events: u64,
    keeps_unread: bool,
    /// What counts as one history of the server's data; empty for its replication id.
    run: &'static str,
    wakes: WakeSender,
    closing: CancellationToken,
    /// Calls that were begun before the store was closed.
    running: TaskTracker,
    listening: AbortOnDropHandle<()>,
}

impl RedisStore {
    /// Connects.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if the server cannot be reached, [`StoreError::OutcomeUnknown`] if it does not reply,
    /// [`StoreError::Backend`] if it is too old; the call can be repeated. [`StoreError::InvalidOption`] if an option is
    /// outside its range.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which its tasks need.
    pub async fn open(config: Config, options: RedisOptions) -> Result<Self, StoreError> {
        let root = options.root()?;
        let scripts = Scripts::load(Server::new(config.clone()), root).await?;
        let wakes = WakeSender::new(WAKES);
        let connected = watch::Sender::new(None);
        let channel = scripts.key("wake");
        let read = |text: &str| message::read(text, message::NO_SENDER);
        let listening = keep_listening(config, channel, read, wakes.clone(), connected);
        Ok(Self {
            shared: Arc::new(Shared {
                scripts,
                max_events: options.max_events,
                keeps_unread: options.keeps_unread,
                run: options.run,
                wakes,
                closing: CancellationToken::new(),
                running: TaskTracker::new(),
                listening: AbortOnDropHandle::new(tokio::spawn(listening.boxed())),
            }),
        })
    }

    /// Runs a call unless the store is closed. One that was begun is not given up, because it may have been done.
    async fn call<T, E>(
        &self,
        call: impl Future<Output = Result<T, E>> + Send,
    ) -> Result<T, StoreError>
    where
        StoreError: From<E>,
    {
        let _running = self.shared.running.token();
        if self.shared.closing.is_cancelled() {
            return Err(StoreError::Closed);
        }
        Ok(call.await?)
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn append(&self, drafts: Vec<Draft>) -> Result<Vec<Event>, StoreError> {
        check_drafts(&drafts)?;
        let scripts = &self.shared.scripts;
        let mut places = HashMap::new();
        let mut users = Vec::new();
        for draft in &drafts {
            places.entry(&draft.user).or_insert_with(|| {
                users.push(&draft.user);
                users.len()
            });
        }
        let mut call = scripts.call(Script::Append);
        call.arg(self.shared.max_events)
            .arg(self.shared.keeps_unread)
            .arg(self.shared.run)
            .arg(users.len());
        for (user, epoch) in users.iter().zip(Epoch::several(users.len())) {
            call.arg(user.as_str()).arg(epoch.as_u64());
        }
        for draft in &drafts {
            call.arg(places[&draft.user])
                .arg(draft.event_type.as_str())
                .arg(draft.payload.as_str())
                .arg(draft.timestamp.as_microsecond())
                .arg(draft.key.as_ref().map_or("", |key| key.as_str()));
        }
        let tops: Vec<u64> = self.call(scripts.run(Script::Append, &call)).await?;
        let tops: Vec<_> = tops.chunks_exact(2).collect();
        if tops.len() != users.len() {
            return Err(reply::unexpected());
        }
        // The events of a user are those up to the top: counted from the end.
        let mut later = vec![0; users.len()];
        let mut ids = Vec::with_capacity(drafts.len());
        for draft in drafts.iter().rev() {
            let place = places[&draft.user] - 1;
            let (epoch, top) = (Epoch::from_u64(tops[place][0]), tops[place][1]);
            let seq = top.checked_sub(later[place]);
            ids.push(EventId::new(epoch, seq.ok_or_else(reply::unexpected)?));
            later[place] += 1;
        }
        let events = drafts.into_iter().zip(ids.into_iter().rev());
        Ok(events
            .map(|(draft, id)| Event::from_draft(draft, id))
            .collect())
    }

    async fn read(&self, user: &UserId, after: u64, limit: usize) -> Result<Page, StoreError> {
        let scripts = &self.shared.scripts;
        let mut call = scripts.call(Script::Read);
        call.arg(user.as_str())
            .arg(after.min(MAX_NUMBER))
            .arg(limit.min(1 << 31))
            .arg(MAX_PAGE_BYTES);
        let page: Option<PageReply> = self.call(scripts.run(Script::Read, &call)).await?;
        let Some((head, events)) = page else {
            return Ok(Page::empty());
        };
        let head = reply::head(head);
        Ok(Page {
            events: reply::events(user, head.epoch, events)?,
            head,
        })
    }

    async fn heads(&self, users: &[UserId]) -> Result<Vec<Head>, StoreError> {
        let scripts = &self.shared.scripts;
        let mut call = scripts.call(Script::Heads);
        for user in users {
            call.arg(user.as_str());
        }
        let heads: Vec<Option<HeadReply>> = self.call(scripts.run(Script::Heads, &call)).await?;
        let head = |found: Option<HeadReply>| found.map_or(Head::EMPTY, reply::head);
        Ok(heads.into_iter().map(head).collect())
    }

    async fn find(&self, user: &UserId, id: EventId) -> Result<Option<Event>, StoreError> {
        let scripts = &self.shared.scripts;
        let mut call = scripts.call(Script::Find);
        call.arg(user.as_str())
            .arg(id.epoch.as_u64())
            .arg(id.seq.min(MAX_NUMBER));
        let found: Option<reply::EventReply> = self.call(scripts.run(Script::Find, &call)).await?;
        found
            .map(|found| reply::event(user, id.epoch, found))
            .transpose()
    }

    async fn inbox(&self, user: &UserId, query: &InboxQuery) -> Result<InboxPage, StoreError> {
        self.call(inbox::page(&self.shared.scripts, user, query))
            .await
    }

    async fn change(
        &self,
        user: &UserId,
        action: &InboxAction,
        at: Timestamp,
    ) -> Result<InboxUpdate, StoreError> {
        action.check()?;
        let scripts = &self.shared.scripts;
        let mut call = scripts.call(Script::Change);
        let (name, ids) = action.name_and_ids();
        call.arg(user.as_str()).arg(at.as_microsecond()).arg(name);
        for id in ids {
            call.arg(id.epoch.as_u64()).arg(id.seq.min(MAX_NUMBER));
        }
        let reply: Option<reply::ChangeReply> =
            self.call(scripts.run(Script::Change, &call)).await?;
        let Some((head, changed, up_to, places)) = reply else {
            return Ok(InboxUpdate::nothing());
        };
        let head = reply::head(head);
        let changed_ids = match u64::try_from(up_to) {
            Ok(seq) => vec![EventId::new(head.epoch, seq)],
            Err(_) => places
                .iter()
                .filter_map(|at| ids.get(*at).copied())
                .collect(),
        };
        Ok(InboxUpdate {
            changed,
            revision: head.revision,
            change: InboxChange {
                what: action.changed(changed_ids),
                unread: head.unread,
                unseen: head.unseen,
                cursor: head.top(),
            },
        })
    }

    async fn mark_delivered(&self, marks: Vec<(UserId, EventId)>) -> Result<(), StoreError> {
        let scripts = &self.shared.scripts;
        let mut call = scripts.call(Script::Deliver);
        for (user, id) in &marks {
            call.arg(user.as_str())
                .arg(id.epoch.as_u64())
                .arg(id.seq.min(MAX_NUMBER));
        }
        self.call(scripts.run(Script::Deliver, &call)).await
    }

    async fn cursor_before(&self, user: &UserId, time: Timestamp) -> Result<EventId, StoreError> {
        let scripts = &self.shared.scripts;
        let mut call = scripts.call(Script::Before);
        call.arg(user.as_str()).arg(time.as_microsecond());
        let found: Option<(u64, u64)> = self.call(scripts.run(Script::Before, &call)).await?;
        Ok(found.map_or(EventId::ORIGIN, |(epoch, seq)| {
            EventId::new(Epoch::from_u64(epoch), seq)
        }))
    }

    async fn mark(&self) -> Result<ChangeMark, StoreError> {
        let scripts = &self.shared.scripts;
        let mut call = scripts.call(Script::Changes);
        call.arg(self.shared.run);
        let now: reply::ChangesReply = self.call(scripts.run(Script::Changes, &call)).await?;
        Ok(reply::mark(&now.0, now.1))
    }

    async fn changes(&self, after: &ChangeMark, limit: usize) -> Result<Changes, StoreError> {
        let scripts = &self.shared.scripts;
        let mut call = scripts.call(Script::Changes);
        call.arg(self.shared.run);
        let limit = limit.clamp(1, 1 << 31);
        match reply::parse_mark(after) {
            Some((run, number)) => call.arg(run).arg(number).arg(limit),
            // No server has such a run.
            None => call.arg("none").arg(0).arg(limit),
        };
        let found: reply::ChangesReply = self.call(scripts.run(Script::Changes, &call)).await?;
        let (run, reached, more, is_known, logs) = found;
        let log = |(user, head): (String, HeadReply)| {
            Ok(LogChange {
                user: UserId::new(user).map_err(StoreError::backend)?,
                head: reply::head(head),
            })
        };
        Ok(Changes {
            mark: reply::mark(&run, reached),
            logs: logs
                .into_iter()
                .map(log)
                .collect::<Result<_, StoreError>>()?,
            more,
            rewound: !is_known,
        })
    }

    fn wakes(&self) -> Option<Wakes> {
        Some(self.shared.wakes.receiver())
    }

    async fn cleanup(&self, cutoff: Timestamp) -> Result<u64, StoreError> {
        let scripts = &self.shared.scripts;
        let (mut removed, mut time, mut user) = (0, String::new(), String::new());
        loop {
            let mut call = scripts.call(Script::Cleanup);
            call.arg(cutoff.as_microsecond())
                .arg(self.shared.keeps_unread)
                .arg(&time)
                .arg(&user);
            let found: Option<reply::CleanupReply> =
                self.call(scripts.run(Script::Cleanup, &call)).await?;
            let Some((count, passed_time, passed_user)) = found else {
                return Ok(removed);
            };
            removed += count;
            (time, user) = (passed_time, passed_user);
        }
    }

    /// Refuses later calls on this store and its clones, waits for those that were begun, no longer than connecting
    /// and the replies may take, and closes the connections.
    async fn close(&self) {
        let Shared {
            closing,
            running,
            listening,
            scripts,
            ..
        } = &*self.shared;
        closing.cancel();
        running.close();
        listening.abort();
        running.wait().await;
        scripts.server().disconnect();
    }
}
