//! Who is online, and where.
//!
//! Every connection holds a **lease**, which ends after a time unless it is refreshed. A user with
//! any lease is online. So after an instance crashes its users go offline when their leases run out,
//! and a backend that lost its data is complete again after the next refresh.

mod memory;
mod registration;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::{RoutingInfo, UserId};

pub use memory::MemoryPresence;
pub use registration::Registration;

/// How long a lease lasts after its last refresh, unless set. Browsers throttle the timers of
/// hidden tabs to one a minute, so that with a shorter time their users would go offline and online
/// again and again.
pub const DEFAULT_LEASE_TTL: Duration = Duration::from_secs(75);

/// Knows which users are online, and which instances hold their connections. Used as
/// `Arc<dyn Presence>`.
///
/// # Contract
///
/// - A user is online while any of their leases is held, was held within the time to live, and was
///   not released.
/// - Holding and releasing may be repeated without harm; releasing a lease that is not held does
///   nothing, and has no effect on other leases.
/// - After [`close`](Self::close) every call returns [`PresenceError::Closed`].
/// - A cancelled call may or may not have taken effect.
#[async_trait]
pub trait Presence: fmt::Debug + Send + Sync + 'static {
    /// Creates the lease, or renews it for its whole time. A lease that expired or was lost is
    /// created again.
    async fn hold(&self, lease: &Lease) -> Result<(), PresenceError>;

    /// Ends the lease.
    async fn release(&self, lease: &Lease) -> Result<(), PresenceError>;

    /// Ends the lease without waiting: at once or soon after, and at the latest when its time is
    /// over.
    fn abandon(&self, lease: &Lease);

    /// Whether the user has a lease.
    async fn is_online(&self, user: &UserId) -> Result<bool, PresenceError>;

    /// Returns those of the users who are online, in the order given.
    async fn online_users(&self, users: &[UserId]) -> Result<Vec<UserId>, PresenceError>;

    /// Returns every place where the user has a connection, each once.
    ///
    /// Returns [`PresenceError::NotFound`] if the user is offline.
    async fn locate(&self, user: &UserId) -> Result<Vec<RoutingInfo>, PresenceError>;

    /// Refuses all later calls. Closing twice is harmless.
    async fn close(&self);
}

/// One connection's claim that its user is online.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Whose connection it is.
    pub user: UserId,
    /// Random, and different for each connection.
    pub id: u64,
    /// Where the connection is.
    pub routing: RoutingInfo,
}

/// Why a call to a [`Presence`] failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PresenceError {
    /// The user is offline.
    #[error("the user is not online")]
    NotFound,
    /// The tracker was closed.
    #[error("the presence tracker is closed")]
    Closed,
    /// The backend failed.
    #[error("the presence tracker failed")]
    Backend {
        /// The backend's error.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl PresenceError {
    /// Wraps the failure of a backend.
    pub fn backend(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Backend {
            source: source.into(),
        }
    }
}
