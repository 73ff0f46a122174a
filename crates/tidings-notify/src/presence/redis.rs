//! Presence on a Redis server, which many instances share.
//!
//! All keys begin with `{tidings:presence}`, or another [prefix](RedisOptions::with_prefix):
//!
//! ```text
//! …:lease            zset: leases by the time at which they end
//! …:lease:<lease>    hash: where the instance is, its version, and the epoch in which it began
//! …:of:<lease>       set: the users who have connections there
//! …:user             hash: the leases of each user, one after the other; epoch and number of the log
//! …:transition       stream: the newest users who came online or went offline, by their number
//! ```
//!
//! Every call is one script, so that it is done whole or not at all. All keys lie in one slot of a
//! cluster, because whether a user came online depends on all of that user's leases; give presences
//! different prefixes to spread them. The URL has to lead to the node that has the slot: a redirection
//! is an error, and not followed.
//!
//! # Cost
//!
//! A heartbeat is one script of some ten commands, whatever the number of connections. Updates name up
//! to [`MAX_UPDATE`](super::MAX_UPDATE) users, and what leases that have ended leave behind is removed
//! with the same bound: about a millisecond. No script walks through keys.
//!
//! # Losses
//!
//! A heartbeat compares the version of the lease, the number of its users and the epoch of the table of
//! users with what the instance has written. So it notices when all keys are gone or any of them, and when a
//! replica was promoted that had not got everything, and the instance writes everything again. Keys that
//! no instance renews expire after a day.
//!
//! # Requirements
//!
//! Redis 7.0 or newer, or Valkey. When a lease ends is judged by the server's clock.

mod options;
mod reading;
mod scripts;
mod writing;

use std::sync::Arc;

use async_trait::async_trait;
pub use tidings_redis::Config;
use tidings_redis::Server;
use tokio_util::sync::CancellationToken;

use super::{
    Heartbeat, Lease, LeaseId, Mark, Presence, PresenceError, Standing, Transitions, Update,
};
use crate::{RoutingInfo, UserId};
use scripts::Scripts;

pub use options::RedisOptions;

/// Presence on a Redis server. Clones share it, and its one connection.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use tidings_notify::presence::redis::{Config, RedisOptions, RedisPresence};
/// use tidings_notify::presence::{Tracker, TrackerOptions};
/// use tidings_notify::{Presence, RoutingInfo};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let config = Config::new("redis://127.0.0.1/")?;
/// let presence = RedisPresence::open(config, RedisOptions::default()).await?;
/// let presence: Arc<dyn Presence> = Arc::new(presence);
/// let here = RoutingInfo { instance_id: "web-3".into(), ..RoutingInfo::default() };
/// let tracker = Tracker::join(presence, here, TrackerOptions::default())?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct RedisPresence {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    scripts: Scripts,
    kept: usize,
    closing: CancellationToken,
}

impl RedisPresence {
    /// Connects.
    ///
    /// # Errors
    ///
    /// [`PresenceError::Backend`] if the server cannot be reached or is too old; the call can be
    /// repeated. [`PresenceError::InvalidOption`] if an option is outside its range.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which its connection needs.
    pub async fn open(config: Config, options: RedisOptions) -> Result<Self, PresenceError> {
        let (root, kept) = options.checked()?;
        let scripts = Scripts::load(Server::new(config), root).await?;
        Ok(Self::with(scripts, kept))
    }

    /// As [`open`](Self::open), but connects with the first call: the server need not be there yet.
    ///
    /// # Errors
    ///
    /// [`PresenceError::InvalidOption`] if an option is outside its range.
    pub fn open_lazy(config: Config, options: RedisOptions) -> Result<Self, PresenceError> {
        let (root, kept) = options.checked()?;
        let scripts = Scripts::new(Server::new(config), root);
        Ok(Self::with(scripts, kept))
    }

    fn with(scripts: Scripts, kept: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                scripts,
                kept,
                closing: CancellationToken::new(),
            }),
        }
    }

    /// Runs a call unless the presence is closed, or gives it up when that happens.
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, PresenceError>> + Send,
    ) -> Result<T, PresenceError> {
        let called = self.shared.closing.run_until_cancelled(call).await;
        called.unwrap_or(Err(PresenceError::Closed))
    }
}

#[async_trait]
impl Presence for RedisPresence {
    async fn update(&self, lease: &Lease, update: &Update) -> Result<Standing, PresenceError> {
        let Shared { scripts, kept, .. } = &*self.shared;
        self.call(writing::update(scripts, *kept, lease, update))
            .await
    }

    async fn beat(&self, lease: &Lease, expected: &Heartbeat) -> Result<Standing, PresenceError> {
        let Shared { scripts, kept, .. } = &*self.shared;
        self.call(writing::beat(scripts, *kept, lease, expected))
            .await
    }

    async fn end(&self, lease: LeaseId) -> Result<(), PresenceError> {
        self.call(writing::end(&self.shared.scripts, lease)).await
    }

    async fn online_users(&self, users: &[UserId]) -> Result<Vec<UserId>, PresenceError> {
        self.call(reading::online_users(&self.shared.scripts, users))
            .await
    }

    async fn locate(&self, user: &UserId) -> Result<Vec<RoutingInfo>, PresenceError> {
        self.call(reading::locate(&self.shared.scripts, user)).await
    }

    async fn transitions(
        &self,
        after: Option<Mark>,
        limit: usize,
    ) -> Result<Transitions, PresenceError> {
        let Shared { scripts, kept, .. } = &*self.shared;
        self.call(reading::transitions(scripts, *kept, after, limit))
            .await
    }

    async fn close(&self) {
        self.shared.closing.cancel();
        self.shared.scripts.server().disconnect();
    }
}
