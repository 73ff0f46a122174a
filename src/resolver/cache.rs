use std::collections::HashMap;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long addresses are believed. The system does not tell how long they are good for; names that
/// move are commonly good for a minute, and an open connection is not looked up again anyway.
pub(super) const POSITIVE_TTL: Duration = Duration::from_secs(30);

/// How long a failure is believed: long enough that a dead name costs little, short enough that a
/// repaired one is soon found.
pub(super) const NEGATIVE_TTL: Duration = Duration::from_secs(10);

/// Most names that are remembered.
pub(super) const MAX_NAMES: usize = 4096;

/// The addresses of a name, not vetted yet, or why there are none.
pub(super) type Answer = Result<Arc<[SocketAddr]>, LookupError>;

/// Why a name could not be looked up. Clones share the cause.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the lookup failed")]
pub(crate) struct LookupError {
    source: Arc<dyn StdError + Send + Sync>,
}

impl LookupError {
    pub(super) fn new(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            source: Arc::from(source.into()),
        }
    }
}

/// What is known about names, and who is finding out more.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    answers: HashMap<Box<str>, Known>,
    /// The names that are being looked up. Each is there for as long as somebody waits for it.
    lookups: HashMap<Box<str>, Arc<tokio::sync::Mutex<()>>>,
}

#[derive(Debug)]
struct Known {
    answer: Answer,
    expires_at: Instant,
}

impl Cache {
    /// What is known about a name and not too old.
    pub(super) fn find(&self, name: &str, now: Instant) -> Option<Answer> {
        let state = self.lock();
        let known = state.answers.get(name)?;
        (now < known.expires_at).then(|| known.answer.clone())
    }

    /// Remembers an answer, in the place of the one that ends first when there is no room.
    pub(super) fn insert(&self, name: &str, answer: Answer, now: Instant) {
        let ttl = match answer {
            Ok(_) => POSITIVE_TTL,
            Err(_) => NEGATIVE_TTL,
        };
        let mut state = self.lock();
        if state.answers.len() >= MAX_NAMES && !state.answers.contains_key(name) {
            state.answers.retain(|_, known| now < known.expires_at);
            if state.answers.len() >= MAX_NAMES {
                let first = (state.answers.iter())
                    .min_by_key(|(_, known)| known.expires_at)
                    .map(|(name, _)| name.clone());
                first.map(|name| state.answers.remove(&name));
            }
        }
        let expires_at = now + ttl;
        state
            .answers
            .insert(name.into(), Known { answer, expires_at });
    }

    pub(super) fn forget(&self, name: &str) {
        self.lock().answers.remove(name);
    }

    /// Queues for the lookup of a name.
    pub(super) fn turn(&self, name: &str) -> Turn<'_> {
        let lookup = Arc::clone(self.lock().lookups.entry(name.into()).or_default());
        Turn {
            cache: self,
            name: name.into(),
            lookup,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic leaves it in disorder.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        let state = self.lock();
        (state.answers.len(), state.lookups.len())
    }
}

/// A place in the queue for one lookup. The last one to leave takes the queue along.
pub(super) struct Turn<'a> {
    cache: &'a Cache,
    name: Box<str>,
    lookup: Arc<tokio::sync::Mutex<()>>,
}

impl Turn<'_> {
    /// Waits until nobody else looks the name up.
    pub(super) async fn wait(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.lookup.lock().await
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.lock();
        // Clones are made under the lock: the map's and this one are the last.
        if Arc::strong_count(&self.lookup) == 2 {
            state.lookups.remove(&self.name);
        }
    }
}
