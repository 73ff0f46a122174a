use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::time::Instant;

use super::{
    DEFAULT_KEPT_TRANSITIONS, Heartbeat, Lease, LeaseId, Mark, Presence, PresenceError, Standing,
    Transition, Transitions, Update,
};
use crate::{RoutingInfo, UserId};

/// Keeps the leases in memory: for one process, and for tests. Clones share them, and are closed
/// together.
#[derive(Debug, Clone, Default)]
pub struct MemoryPresence {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Debug)]
struct Shared {
    /// One of each tracker, and in most cases that is one.
    leases: HashMap<LeaseId, Held>,
    log: VecDeque<Transition>,
    kept: usize,
    /// The number of the last transition.
    last: u64,
    is_closed: bool,
}

#[derive(Debug)]
struct Held {
    routing: RoutingInfo,
    until: Instant,
    version: u64,
    users: HashSet<UserId>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            leases: HashMap::new(),
            log: VecDeque::new(),
            kept: DEFAULT_KEPT_TRANSITIONS,
            last: 0,
            is_closed: false,
        }
    }
}

impl MemoryPresence {
    /// A presence without users.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets how many transitions are kept for those who watch. The default is
    /// [`DEFAULT_KEPT_TRANSITIONS`].
    #[must_use]
    pub fn with_kept_transitions(self, kept: usize) -> Self {
        self.lock().kept = kept;
        self
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        // Nothing in here panics half-way through a change.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, Shared>, PresenceError> {
        let shared = self.lock();
        if shared.is_closed {
            return Err(PresenceError::Closed);
        }
        Ok(shared)
    }
}

impl Shared {
    fn has(&self, user: &UserId) -> bool {
        self.leases.values().any(|held| held.users.contains(user))
    }

    /// Adds a user to a lease that there is.
    fn add(&mut self, user: &UserId, lease: LeaseId) {
        if !self.has(user) {
            self.log(user, true);
        }
        if let Some(held) = self.leases.get_mut(&lease) {
            held.users.insert(user.clone());
        }
    }

    fn remove(&mut self, user: &UserId, lease: LeaseId) {
        let held = self.leases.get_mut(&lease);
        let was_there = held.is_some_and(|held| held.users.remove(user));
        if was_there && !self.has(user) {
            self.log(user, false);
        }
    }

    fn log(&mut self, user: &UserId, is_online: bool) {
        self.log.push_back(Transition {
            user: user.clone(),
            is_online,
        });
        self.last += 1;
    }

    /// Removes the leases that have ended.
    fn expire(&mut self) {
        let now = Instant::now();
        let ended = |(lease, held): (&LeaseId, &Held)| (held.until <= now).then_some(*lease);
        let ended: Vec<LeaseId> = self.leases.iter().filter_map(ended).collect();
        for lease in ended {
            let held = self.leases.remove(&lease);
            for user in held.iter().flat_map(|held| &held.users) {
                if !self.has(user) {
                    self.log(user, false);
                }
            }
        }
        self.forget();
    }

    fn forget(&mut self) {
        let excess = self.log.len().saturating_sub(self.kept);
        self.log.drain(..excess);
    }

    /// The leases of a user that have not ended.
    fn alive(&self, user: &UserId) -> impl Iterator<Item = &Held> {
        let now = Instant::now();
        let leases = self.leases.values();
        leases.filter(move |held| now < held.until && held.users.contains(user))
    }
}

#[async_trait]
impl Presence for MemoryPresence {
    async fn update(&self, lease: &Lease, update: &Update) -> Result<Standing, PresenceError> {
        let mut shared = self.open()?;
        let version = shared.leases.get(&lease.id).map_or(0, |held| held.version);
        if !(update.confirmed..update.version).contains(&version) {
            return Ok(Standing::Lost);
        }
        let held = shared.leases.entry(lease.id).or_insert_with(|| Held {
            routing: lease.routing.clone(),
            until: Instant::now(),
            version: 0,
            users: HashSet::new(),
        });
        held.version = update.version;
        held.until = Instant::now() + lease.lasts();
        for user in &update.came {
            shared.add(user, lease.id);
        }
        for user in &update.left {
            shared.remove(user, lease.id);
        }
        shared.forget();
        Ok(Standing::Kept)
    }

    async fn beat(&self, lease: &Lease, expected: &Heartbeat) -> Result<Standing, PresenceError> {
        let mut shared = self.open()?;
        let is_expected = |held: &&mut Held| {
            held.version == expected.version && held.users.len() as u64 == expected.users
        };
        let standing = match shared.leases.get_mut(&lease.id).filter(is_expected) {
            Some(held) => {
                held.until = Instant::now() + lease.lasts();
                Standing::Kept
            }
            None => Standing::Lost,
        };
        shared.expire();
        Ok(standing)
    }

    async fn end(&self, lease: LeaseId) -> Result<(), PresenceError> {
        let mut shared = self.open()?;
        if let Some(held) = shared.leases.get_mut(&lease) {
            held.until = Instant::now();
        }
        shared.expire();
        Ok(())
    }

    async fn online_users(&self, users: &[UserId]) -> Result<Vec<UserId>, PresenceError> {
        let shared = self.open()?;
        let is_online = |user: &&UserId| shared.alive(user).next().is_some();
        Ok(users.iter().filter(is_online).cloned().collect())
    }

    async fn locate(&self, user: &UserId) -> Result<Vec<RoutingInfo>, PresenceError> {
        let shared = self.open()?;
        let mut places: Vec<RoutingInfo> = Vec::new();
        for held in shared.alive(user) {
            if !places.contains(&held.routing) {
                places.push(held.routing.clone());
            }
        }
        if places.is_empty() {
            return Err(PresenceError::NotFound);
        }
        Ok(places)
    }

    async fn transitions(
        &self,
        after: Option<Mark>,
        limit: usize,
    ) -> Result<Transitions, PresenceError> {
        // The memory of one process does not begin anew.
        const EPOCH: u64 = 0;
        let mut shared = self.open()?;
        shared.expire();
        let oldest = shared.last - shared.log.len() as u64 + 1;
        let first = after.map_or(oldest, |mark| mark.number.saturating_add(1).max(oldest));
        let skipped = usize::try_from(first - oldest).unwrap_or(usize::MAX);
        let page: Vec<Transition> = shared
            .log
            .iter()
            .skip(skipped)
            .take(limit.max(1))
            .cloned()
            .collect();
        let first = (!page.is_empty()).then_some(first);
        Ok(Transitions::page(after, EPOCH, shared.last, first, page))
    }

    async fn close(&self) {
        *self.lock() = Shared {
            is_closed: true,
            ..Shared::default()
        };
    }
}
