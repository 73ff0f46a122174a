//! What an instance writes to the store.

use std::fmt;
use std::time::Duration;

use super::PresenceError;
use crate::{RoutingInfo, UserId};

/// Most users in one [`Update`] of a [`Tracker`](super::Tracker), so that no call to the store is
/// long.
pub const MAX_UPDATE: usize = 500;

/// An instance's claim that it is alive, and has the users that it has named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// A new one each time that an instance begins, or writes everything again.
    pub id: LeaseId,
    /// Where the connections are.
    pub routing: RoutingInfo,
    /// How long it lasts after it was renewed; stores may end it after a year.
    pub ttl: Duration,
}

/// Longest time to live. Not every store can compute the end of a longer one.
const MAX_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Lease {
    /// For how long a store keeps it after it was renewed.
    pub(super) fn lasts(&self) -> Duration {
        self.ttl.min(MAX_TTL)
    }
}

/// The random number of a [`Lease`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(u64);

impl LeaseId {
    /// Draws one.
    ///
    /// # Errors
    ///
    /// [`PresenceError::Backend`] when the operating system has no random numbers.
    pub fn random() -> Result<Self, PresenceError> {
        getrandom::u64().map(Self).map_err(PresenceError::backend)
    }

    /// The number.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}

impl From<u64> for LeaseId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl fmt::Display for LeaseId {
    /// Always 16 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What has changed since the update before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Update {
    /// The version that the store is known to have; zero when it has none. It may have a later one:
    /// that of an update whose outcome is unknown.
    pub confirmed: u64,
    /// The version that this update makes. It is larger than any that was used before, and at most
    /// [`MAX_VERSION`](Self::MAX_VERSION).
    pub version: u64,
    /// Users who have their first connection to the instance. A user who had one before is no error.
    pub came: Vec<UserId>,
    /// Users who have no connection to the instance any more. A user who had none is no error.
    pub left: Vec<UserId>,
}

impl Update {
    /// Largest version of an update. Stores may use larger ones for leases that have ended.
    pub const MAX_VERSION: u64 = 1 << 52;
}

/// What the store should have of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// The version of the last update.
    pub version: u64,
    /// How many users the lease has.
    pub users: u64,
}

/// Whether the store has a lease as the instance has written it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "an instance whose lease is lost has to write everything again"]
pub enum Standing {
    /// It has.
    Kept,
    /// The lease has ended, or the store has lost a part of it. The instance must begin another lease
    /// and write everything again.
    Lost,
}
