use std::collections::HashMap;
use std::error::Error as StdError;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::{Resolve, ResolveError, Resolved};

/// How long addresses are cached when their resolver does not say. Names that move are commonly
/// good for a minute, and a kept connection needs no lookup anyway.
pub(super) const DEFAULT_TTL: Duration = Duration::from_secs(30);

/// The range of a time to live. Less would be a lookup for each connection; more would outlast a
/// move for too long.
pub(super) const MIN_TTL: Duration = Duration::from_secs(1);
pub(super) const MAX_TTL: Duration = Duration::from_secs(300);

/// How long a failure is cached: long enough that a dead name costs little, short enough that a
/// repaired one is soon found.
pub(super) const NEGATIVE_TTL: Duration = Duration::from_secs(10);

/// Longest time of a lookup. What takes longer is as good as silent.
pub(super) const LOOKUP_TIME: Duration = Duration::from_secs(30);

/// Most names that are remembered, those that are being resolved included.
pub(super) const MAX_NAMES: usize = 4096;

/// The addresses of a name, not vetted yet, or why there are none.
pub(super) type Reply = Result<Arc<[IpAddr]>, LookupError>;

/// Why a name was not resolved. Clones share the cause.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the lookup failed")]
pub(crate) struct LookupError {
    /// When the lookup began, if no name server replied to it.
    silent_since: Option<Instant>,
    source: Arc<dyn StdError + Send + Sync>,
}

impl LookupError {
    /// When the lookup began, if no name server replied to it.
    pub(crate) fn silent_since(&self) -> Option<Instant> {
        self.silent_since
    }
}

/// What is known about names, and the lookups under way.
///
/// A lookup runs in a task that belongs to the cache: attempts wait for it and may give up, and the
/// next one finds what it found.
pub(super) struct Cache {
    resolve: Arc<dyn Resolve>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    names: HashMap<Box<str>, Entry>,
    /// When a name server last replied, about any name.
    last_reply: Option<Instant>,
}

struct Entry {
    known: watch::Receiver<Option<Known>>,
    _lookup: AbortOnDropHandle<()>,
}

#[derive(Debug, Clone)]
struct Known {
    reply: Reply,
    expires_at: Instant,
}

impl Cache {
    pub(super) fn new(resolve: Arc<dyn Resolve>) -> Self {
        Self {
            resolve,
            state: Arc::default(),
        }
    }

    /// Finds the addresses of a name.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the lookup under way.
    pub(super) async fn resolve(&self, name: &str) -> Reply {
        loop {
            let mut known = self.find_or_begin(name)?;
            if let Ok(known) = known.wait_for(Option::is_some).await
                && let Some(known) = &*known
            {
                return known.reply.clone();
            }
            // The lookup ended with its runtime, or with the entry: another one begins.
            self.remove_if_ended(name);
        }
    }

    /// The addresses of a name that was resolved, without another lookup.
    pub(super) fn known(&self, name: &str) -> Option<Arc<[IpAddr]>> {
        let state = lock(&self.state);
        let known = state.names.get(name)?.known.borrow();
        known.as_ref()?.reply.as_ref().ok().cloned()
    }

    pub(super) fn forget(&self, name: &str) {
        let mut state = lock(&self.state);
        if let Some(entry) = state.names.get(name)
            && entry.known.borrow().is_some()
        {
            state.names.remove(name);
        }
    }

    /// Whether a name server has replied since some time.
    pub(super) fn got_reply_since(&self, time: Instant) -> bool {
        let last_reply = lock(&self.state).last_reply;
        last_reply.is_some_and(|reply| reply > time)
    }

    fn find_or_begin(&self, name: &str) -> Result<watch::Receiver<Option<Known>>, LookupError> {
        let now = Instant::now();
        let mut state = lock(&self.state);
        if let Some(entry) = state.names.get(name)
            && !entry.is_expired(now)
        {
            return Ok(entry.known.clone());
        }
        state.make_room(name, now)?;
        let (sender, known) = watch::channel(None);
        let entry = Entry {
            known: known.clone(),
            _lookup: AbortOnDropHandle::new(self.spawn(name, now, sender)),
        };
        state.names.insert(name.into(), entry);
        Ok(known)
    }

    fn spawn(
        &self,
        name: &str,
        began: Instant,
        sender: watch::Sender<Option<Known>>,
    ) -> tokio::task::JoinHandle<()> {
        let (resolve, state) = (Arc::clone(&self.resolve), Arc::downgrade(&self.state));
        let name = name.to_owned();
        tokio::spawn(async move {
            // In a task of its own: should it panic, this one continues.
            let lookup = tokio::spawn(async move { resolve.resolve(&name).await });
            let lookup = AbortOnDropHandle::new(lookup);
            let mut has_panicked = false;
            let found = match timeout(LOOKUP_TIME, lookup).await {
                Ok(Ok(found)) => found,
                Ok(Err(panicked)) => {
                    has_panicked = true;
                    Err(ResolveError::Unavailable(panicked.into()))
                }
                Err(elapsed) => Err(ResolveError::Unavailable(elapsed.into())),
            };
            let is_reply = !matches!(found, Err(ResolveError::Unavailable(_)));
            if let Some(state) = state.upgrade()
                && is_reply
            {
                lock(&state).last_reply = Some(Instant::now());
            }
            let mut known = Known::new(found, began);
            if has_panicked {
                // It costs those that waited for it, and no others.
                known.expires_at = Instant::now();
            }
            sender.send_replace(Some(known));
        })
    }

    fn remove_if_ended(&self, name: &str) {
        let mut state = lock(&self.state);
        if let Some(entry) = state.names.get(name)
            && entry.known.has_changed().is_err()
            && entry.known.borrow().is_none()
        {
            state.names.remove(name);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        lock(&self.state).names.len()
    }
}

impl State {
    /// Makes room for a name, in the place of the one that expires first.
    fn make_room(&mut self, name: &str, now: Instant) -> Result<(), LookupError> {
        if self.names.len() < MAX_NAMES || self.names.contains_key(name) {
            return Ok(());
        }
        self.names.retain(|_, entry| !entry.is_expired(now));
        if self.names.len() < MAX_NAMES {
            return Ok(());
        }
        let first = (self.names.iter())
            .filter_map(|(name, entry)| {
                let expires_at = entry.known.borrow().as_ref()?.expires_at;
                Some((expires_at, name.clone()))
            })
            .min();
        match first {
            Some((_, first)) => {
                self.names.remove(&first);
                Ok(())
            }
            None => Err(LookupError {
                silent_since: Some(now),
                source: Arc::new(TooMany),
            }),
        }
    }
}

impl Entry {
    fn is_expired(&self, now: Instant) -> bool {
        let known = self.known.borrow();
        known.as_ref().is_some_and(|known| known.expires_at <= now)
    }
}

impl Known {
    fn new(found: Result<Resolved, ResolveError>, began: Instant) -> Self {
        let (reply, ttl) = match found {
            Ok(found) if found.addresses.is_empty() => {
                (Err(LookupError::new(None, NoAddress)), NEGATIVE_TTL)
            }
            Ok(found) => {
                let ttl = found.ttl.unwrap_or(DEFAULT_TTL).clamp(MIN_TTL, MAX_TTL);
                (Ok(found.addresses.into()), ttl)
            }
            Err(ResolveError::NotFound(source)) => {
                (Err(LookupError::new(None, source)), NEGATIVE_TTL)
            }
            Err(ResolveError::Unavailable(source)) => {
                (Err(LookupError::new(Some(began), source)), NEGATIVE_TTL)
            }
        };
        Self {
            reply,
            expires_at: Instant::now() + ttl,
        }
    }
}

impl LookupError {
    fn new(
        silent_since: Option<Instant>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self {
            silent_since,
            source: Arc::from(source.into()),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the name has no address")]
struct NoAddress;

#[derive(Debug, thiserror::Error)]
#[error("{MAX_NAMES} names are being resolved at the same time")]
struct TooMany;

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").finish_non_exhaustive()
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // Nothing that can panic leaves it in disorder.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
