//! Who is online, and where.
//!
//! # The model
//!
//! Each process that holds connections of users is an **instance**, and holds one **lease** in the
//! store that all instances share. A [`Tracker`] keeps it: it counts the connections of each user,
//! writes the first and the last one to the store, and renews the lease by a heartbeat, which is
//! one call for any number of connections.
//!
//! ```text
//! connection ──▶ Registration ─┐
//! connection ──▶ Registration ─┼─▶ Tracker ── update: who came, who left ──▶ Presence (the store)
//! connection ──▶ Registration ─┘    one for   beat: the lease lasts on          one lease for each
//!                                   each      ◀── transitions: for `watch` ──   instance
//!                                   instance
//! ```
//!
//! | if | then |
//! |---|---|
//! | an instance crashes | its users are offline when its lease ends, unless another instance has them |
//! | the store loses data (a flush, a failover, an eviction) | the next heartbeat notices, and everything is written again |
//! | an instance was paused until its lease ended | the same |
//! | the store cannot be reached | connections are counted all the same, and written later |
//! | the store has no room | the same, and the users that it has stay online |
//! | a user reconnects within the grace time | [`Watch`] reports nothing |
//!
//! When a lease ends is judged by the store's clock alone; clocks of instances are never compared. It is the
//! server's, and setting it changes how long a lease lasts until the next heartbeat: set forward, users who
//! are online seem offline until then; set back, those of an instance that crashes before then stay online
//! for as much longer. [`MemoryPresence`], heartbeats and grace go by the monotonic clock, which is never set.
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//!
//! use tidings_notify::presence::{Tracker, TrackerOptions};
//! use tidings_notify::{MemoryPresence, Presence, RoutingInfo, UserId};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let presence: Arc<dyn Presence> = Arc::new(MemoryPresence::default());
//! let here = RoutingInfo { instance_id: "web-3".into(), ..RoutingInfo::default() };
//! let tracker = Tracker::join(presence.clone(), here, TrackerOptions::default())?;
//!
//! let ann = UserId::new("ann")?;
//! let connection = tracker.register(ann.clone())?;
//! connection.stored().await?;
//! assert!(presence.is_online(&ann).await?);
//! assert_eq!(presence.locate(&ann).await?[0].instance_id, "web-3");
//!
//! drop(connection);
//! tracker.close().await?;
//! # Ok(()) }
//! ```
//!
//! # Stores
//!
//! | store | feature | for |
//! |---|---|---|
//! | [`MemoryPresence`] | | one process, and tests |
#![cfg_attr(
    feature = "postgres",
    doc = "| [`PostgresPresence`](postgres::PostgresPresence) | `postgres` | instances that share a database |"
)]
#![cfg_attr(
    feature = "redis",
    doc = "| [`RedisPresence`](redis::RedisPresence) | `redis` | instances that share a Redis server |"
)]
//!
//! Your own store implements [`Presence`]; the feature `conformance` has its contract as functions.

mod error;
mod lease;
mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
mod tracker;
mod transition;

#[cfg(feature = "conformance")]
pub mod conformance;

use std::fmt;
use std::slice;

use async_trait::async_trait;

use crate::{RoutingInfo, UserId};

pub use error::PresenceError;
pub use lease::{Heartbeat, Lease, LeaseId, MAX_UPDATE, Standing, Update};
pub use memory::MemoryPresence;
pub use tracker::{
    DEFAULT_GRACE, DEFAULT_LEASE_TTL, DEFAULT_WATCH_BUFFER, DEFAULT_WATCH_INTERVAL, Registration,
    Tracker, TrackerOptions, Watch, WatchItem,
};
pub use transition::{DEFAULT_KEPT_TRANSITIONS, Mark, Transition, Transitions};

/// Where instances write which users they have, and read those of all. Used as
/// `Arc<dyn Presence>`.
///
/// An application registers connections with a [`Tracker`], and calls [`online_users`] and [`locate`];
/// the other methods are for trackers.
///
/// # Contract
///
/// - A user is online while a lease that has not ended has the user. A lease ends when it was not
///   renewed for its time to live, by the store's clock, or by [`end`].
/// - What one instance writes is independent of what others write: a user may be at many instances.
/// - [`update`] and [`end`] may be repeated without harm. An update takes effect as a whole or not at
///   all, and not after a later one of the same lease.
/// - A user has one **transition** with the first lease and one when the last is gone, so that those
///   of a user alternate. After the end of a lease they may come later: [`beat`] and
///   [`transitions`] remove what leases that have ended leave behind, a bounded part of it each
///   time.
/// - After [`close`](Self::close) every call returns [`PresenceError::Closed`].
///
/// # Cancel safety
///
/// A cancelled call may or may not have taken effect, or may take effect later. The versions of updates
/// make this harmless.
///
/// [`online_users`]: Self::online_users
/// [`locate`]: Self::locate
/// [`update`]: Self::update
/// [`end`]: Self::end
/// [`beat`]: Self::beat
/// [`transitions`]: Self::transitions
#[async_trait]
pub trait Presence: fmt::Debug + Send + Sync + 'static {
    /// Reports which users have come to an instance and which have left it, and renews its lease for its
    /// whole time to live. The first update of a lease creates it.
    ///
    /// Returns [`Standing::Lost`], and changes nothing, unless the store's version of the lease is
    /// [`confirmed`](Update::confirmed) or a later one before [`version`](Update::version); the
    /// version of a lease that the store does not have is zero.
    async fn update(&self, lease: &Lease, update: &Update) -> Result<Standing, PresenceError>;

    /// Renews the lease for its whole time to live. It is one call, whatever the number of users.
    ///
    /// Returns [`Standing::Lost`], and changes nothing, unless the store has the lease as it is
    /// [expected](Heartbeat).
    async fn beat(&self, lease: &Lease, expected: &Heartbeat) -> Result<Standing, PresenceError>;

    /// Ends the lease at once. It cannot be renewed any more.
    async fn end(&self, lease: LeaseId) -> Result<(), PresenceError>;

    /// Returns those of the users who are online, in the order given.
    async fn online_users(&self, users: &[UserId]) -> Result<Vec<UserId>, PresenceError>;

    /// Returns every place where the user has a connection, each once, in no particular order.
    ///
    /// Returns [`PresenceError::NotFound`] if the user is offline.
    async fn locate(&self, user: &UserId) -> Result<Vec<RoutingInfo>, PresenceError>;

    /// Returns the transitions after the mark, oldest first, at most `limit` of them; without a mark,
    /// none and the mark of now.
    async fn transitions(
        &self,
        after: Option<Mark>,
        limit: usize,
    ) -> Result<Transitions, PresenceError>;

    /// Refuses all later calls. Closing twice is harmless. Leases stay until they end.
    async fn close(&self);

    /// Whether the user is online.
    async fn is_online(&self, user: &UserId) -> Result<bool, PresenceError> {
        Ok(!self.online_users(slice::from_ref(user)).await?.is_empty())
    }
}
