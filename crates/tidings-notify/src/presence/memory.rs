use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{DEFAULT_LEASE_TTL, Lease, Presence, PresenceError};
use crate::{RoutingInfo, UserId};

/// Longest lease. The end of a longer one could not be computed on every system.
const MAX_TTL: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Keeps the leases in memory: for one instance, and for tests. Clones share them.
#[derive(Debug, Clone)]
pub struct MemoryPresence {
    leases: Arc<Mutex<Leases>>,
    ttl: Duration,
}

#[derive(Debug, Default)]
struct Leases {
    users: HashMap<UserId, BTreeMap<u64, Held>>,
    /// Every lease by the time at which it runs out.
    expiries: BTreeSet<(Instant, UserId, u64)>,
    is_closed: bool,
}

#[derive(Debug)]
struct Held {
    routing: RoutingInfo,
    until: Instant,
}

impl Default for MemoryPresence {
    /// Leases of [`DEFAULT_LEASE_TTL`].
    fn default() -> Self {
        Self::new(DEFAULT_LEASE_TTL)
    }
}

impl MemoryPresence {
    /// Leases that last for `ttl` after their last refresh, at most a year.
    pub fn new(ttl: Duration) -> Self {
        Self {
            leases: Arc::default(),
            ttl: ttl.min(MAX_TTL),
        }
    }

    /// Locks the leases that are held now.
    fn open(&self) -> Result<MutexGuard<'_, Leases>, PresenceError> {
        // Nothing in here panics half-way through a change.
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        if leases.is_closed {
            return Err(PresenceError::Closed);
        }
        leases.expire(Instant::now());
        Ok(leases)
    }
}

impl Leases {
    fn expire(&mut self, now: Instant) {
        while let Some((until, ..)) = self.expiries.first()
            && *until <= now
            && let Some((_, user, id)) = self.expiries.pop_first()
        {
            self.remove(&user, id);
        }
    }

    fn remove(&mut self, user: &UserId, id: u64) {
        let Some(held) = self.users.get_mut(user) else {
            return;
        };
        if let Some(lease) = held.remove(&id) {
            self.expiries.remove(&(lease.until, user.clone(), id));
        }
        if held.is_empty() {
            self.users.remove(user);
        }
    }
}

#[async_trait]
impl Presence for MemoryPresence {
    async fn hold(&self, lease: &Lease) -> Result<(), PresenceError> {
        let mut leases = self.open()?;
        leases.remove(&lease.user, lease.id);
        let until = Instant::now() + self.ttl;
        leases
            .expiries
            .insert((until, lease.user.clone(), lease.id));
        let held = leases.users.entry(lease.user.clone()).or_default();
        let routing = lease.routing.clone();
        held.insert(lease.id, Held { routing, until });
        Ok(())
    }

    async fn release(&self, lease: &Lease) -> Result<(), PresenceError> {
        self.open()?.remove(&lease.user, lease.id);
        Ok(())
    }

    fn abandon(&self, lease: &Lease) {
        // A closed tracker has no leases left.
        if let Ok(mut leases) = self.open() {
            leases.remove(&lease.user, lease.id);
        }
    }

    async fn is_online(&self, user: &UserId) -> Result<bool, PresenceError> {
        Ok(self.open()?.users.contains_key(user))
    }

    async fn online_users(&self, users: &[UserId]) -> Result<Vec<UserId>, PresenceError> {
        let leases = self.open()?;
        let is_online = |user: &&UserId| leases.users.contains_key(*user);
        Ok(users.iter().filter(is_online).cloned().collect())
    }

    async fn locate(&self, user: &UserId) -> Result<Vec<RoutingInfo>, PresenceError> {
        let leases = self.open()?;
        let held = leases.users.get(user).ok_or(PresenceError::NotFound)?;
        let mut places: Vec<RoutingInfo> = Vec::new();
        for lease in held.values() {
            if !places.contains(&lease.routing) {
                places.push(lease.routing.clone());
            }
        }
        Ok(places)
    }

    async fn close(&self) {
        let mut leases = self.leases.lock().unwrap_or_else(PoisonError::into_inner);
        *leases = Leases {
            is_closed: true,
            ..Leases::default()
        };
    }
}
