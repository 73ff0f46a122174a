//! Who is online, and where.
//!
//! Every connection holds a **lease**, which ends after a time unless it is refreshed. A user with
//! any lease is online. So an instance that crashes takes nobody offline for ever and leaves nobody
//! online for ever, and a backend that lost its data is healed by the next refresh.

mod dyn_presence;
mod memory;

use std::time::Duration;

use crate::{RoutingInfo, UserId};

pub use dyn_presence::{DynPresence, Registration};
pub use memory::MemoryPresence;

/// How long a lease lasts after its last refresh, unless set. Browsers throttle the timers of
/// hidden tabs to one a minute, so that a shorter time would make them flicker.
pub const DEFAULT_LEASE_TTL: Duration = Duration::from_secs(75);

/// Knows which users are online, and which instances hold their connections.
///
/// # Contract
///
/// - A user is online while any of their leases is held, was held within the time to live, and was
///   not released.
/// - Holding and releasing may be repeated without harm; releasing a lease that is not held does
///   nothing, and touches no other lease.
/// - After [`close`](Self::close) every call answers [`PresenceError::Closed`].
/// - A cancelled call may or may not have taken effect.
pub trait Presence: Send + Sync + 'static {
    /// Creates the lease, or makes it last for its whole time again. A lease that expired or was
    /// lost comes back.
    fn hold(&self, lease: &Lease) -> impl Future<Output = Result<(), PresenceError>> + Send;

    /// Ends the lease.
    fn release(&self, lease: &Lease) -> impl Future<Output = Result<(), PresenceError>> + Send;

    /// Ends the lease without waiting: at once or soon after, and at the latest when its time is
    /// over.
    fn abandon(&self, lease: &Lease);

    /// Whether the user has a lease.
    fn is_online(&self, user: &UserId) -> impl Future<Output = Result<bool, PresenceError>> + Send;

    /// Those of the users who are online, in the order given.
    fn online_users(
        &self,
        users: &[UserId],
    ) -> impl Future<Output = Result<Vec<UserId>, PresenceError>> + Send;

    /// Every place where the user has a connection, each once.
    ///
    /// Answers [`PresenceError::NotFound`] when the user is offline.
    fn locate(
        &self,
        user: &UserId,
    ) -> impl Future<Output = Result<Vec<RoutingInfo>, PresenceError>> + Send;

    /// Refuses all later calls. Closing twice is harmless.
    fn close(&self) -> impl Future<Output = ()> + Send;
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

/// Why a [`Presence`] could not do what it was asked.
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
        /// What the backend said.
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
