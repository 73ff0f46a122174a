//! The API keys of the database, as this instance knows them: a copy in memory, so that requests do not
//! read the database, which is read again so often that a revoked key stops working within seconds.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex as StdMutex, PoisonError, RwLock};
use std::time::Duration;

use tidings_storage::{AllKeys, ApiKeyStore, StorageError, StoredKey};

use crate::panics;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::new_key;

/// How often the keys are read: the time after which every instance knows of a change.
const PERIOD: Duration = Duration::from_secs(2);

/// An unknown key may be new, so the keys are read for it; at most so often.
const AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// How often it is written which keys were used.
const RECORD_EVERY: Duration = Duration::from_secs(60);

/// How long a key that has expired is remembered, so that its owner reads that it has expired.
const FORGET_AFTER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The time of a use that has not been.
const NEVER: i64 = 0;

/// The keys of the database.
#[derive(Debug)]
pub(crate) struct StoredKeys {
    store: Arc<dyn ApiKeyStore>,
    known: RwLock<HashMap<[u8; 32], Arc<KnownKey>>>,
    /// When the keys were last read, and what came of it. One at a time reads them.
    read: Mutex<Option<(Instant, Result<(), StorageError>)>>,
    /// The keys that could not be read, by their ids.
    unreadable: StdMutex<Vec<String>>,
}

/// A key that this instance knows.
#[derive(Debug)]
pub(crate) struct KnownKey {
    pub(crate) key: StoredKey,
    /// Cancelled when the key is gone.
    pub(crate) revoked: CancellationToken,
    /// When it was used last, in microseconds since 1970, or [`NEVER`].
    used: AtomicI64,
}

impl KnownKey {
    fn new(key: StoredKey) -> Self {
        Self {
            key,
            revoked: CancellationToken::new(),
            used: AtomicI64::new(NEVER),
        }
    }

    fn last_use(&self) -> Option<Timestamp> {
        let used = self.used.load(Ordering::Relaxed);
        (used != NEVER)
            .then(|| Timestamp::from_microsecond(used).ok())
            .flatten()
    }
}

impl StoredKeys {
    pub(crate) async fn open(store: Arc<dyn ApiKeyStore>) -> Result<Self, StorageError> {
        let keys = Self {
            store,
            known: RwLock::default(),
            read: Mutex::default(),
            unreadable: StdMutex::default(),
        };
        keys.refresh().await?;
        Ok(keys)
    }

    pub(crate) fn store(&self) -> &Arc<dyn ApiKeyStore> {
        &self.store
    }

    /// Finds a key. The store is asked for one that is not known and could be new.
    pub(crate) async fn find(&self, text: &str) -> Result<Option<Arc<KnownKey>>, StorageError> {
        if !new_key::looks_like_one(text) {
            return Ok(None);
        }
        let digest = Sha256::digest(text).into();
        let mut found = self.look_up(&digest);
        if found.is_none() {
            self.refresh_unless_recent().await?;
            found = self.look_up(&digest);
        }
        if let Some(found) = &found {
            let now = Timestamp::now().as_microsecond();
            found.used.fetch_max(now, Ordering::Relaxed);
        }
        Ok(found)
    }

    fn look_up(&self, digest: &[u8; 32]) -> Option<Arc<KnownKey>> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        known.get(digest).cloned()
    }

    /// Reads the keys, and ends what the revoked ones have opened.
    pub(crate) async fn refresh(&self) -> Result<(), StorageError> {
        let mut read = self.read.lock().await;
        let outcome = self.read_all().await;
        *read = Some((Instant::now(), outcome.clone()));
        outcome
    }

    /// Refuses a key that was removed from the store, and ends what it has opened.
    pub(crate) async fn forget(&self, id: &str) {
        // A reading that is under way may have found the key before it was removed.
        let _no_reading = self.read.lock().await;
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.retain(|_, known| {
            let is_gone = known.key.id == id;
            if is_gone {
                known.revoked.cancel();
            }
            !is_gone
        });
    }

    /// A store that fails is not asked by every request either.
    async fn refresh_unless_recent(&self) -> Result<(), StorageError> {
        let mut read = self.read.lock().await;
        if let Some((at, outcome)) = &*read
            && at.elapsed() < AT_MOST_EVERY
        {
            return outcome.clone();
        }
        let outcome = self.read_all().await;
        *read = Some((Instant::now(), outcome.clone()));
        outcome
    }

    async fn read_all(&self) -> Result<(), StorageError> {
        let AllKeys { keys, unreadable } = self.store.all().await?;
        self.replace(keys);
        self.warn_of_unreadable(unreadable);
        Ok(())
    }

    fn replace(&self, keys: Vec<StoredKey>) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *known);
        for key in keys {
            let digest = key.digest;
            let same = before.remove(&digest);
            known.insert(digest, same.unwrap_or_else(|| Arc::new(KnownKey::new(key))));
        }
        for gone in before.values() {
            gone.revoked.cancel();
        }
    }

    /// One line for each change, not for each reading.
    fn warn_of_unreadable(&self, ids: Vec<String>) {
        let new = {
            let mut known = self
                .unreadable
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let is_new = *known != ids && !ids.is_empty();
            let keys = is_new.then(|| ids.join(", "));
            *known = ids;
            keys
        };
        if let Some(keys) = new {
            panics::catch(|| {
                tracing::warn!(
                    keys,
                    "cannot read some API keys in the database, which are refused; the others stay valid"
                );
            });
        }
    }

    /// Reads the keys again and again, and writes which were used. Never returns.
    pub(crate) async fn run(&self) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut recorded = (Instant::now(), NEVER);
        let mut is_failing = false;
        loop {
            ticks.tick().await;
            let mut outcome = self.refresh().await;
            if outcome.is_ok() && recorded.0.elapsed() >= RECORD_EVERY {
                let now = (Instant::now(), Timestamp::now().as_microsecond());
                outcome = self.record_uses_since(recorded.1).await;
                if outcome.is_ok() {
                    outcome = self.forget_expired().await;
                }
                if outcome.is_ok() {
                    recorded = now;
                }
            }
            let was_failing = std::mem::replace(&mut is_failing, outcome.is_err());
            match outcome {
                // One line for an outage.
                Err(error) if !was_failing => {
                    let error: &dyn std::error::Error = &error;
                    panics::catch(|| {
                        tracing::warn!(
                            error,
                            "cannot read the API keys, trying again; known keys stay valid"
                        );
                    });
                }
                Ok(()) if was_failing => {
                    panics::catch(|| tracing::info!("reading the API keys again"));
                }
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// A key of the store with the uses of this instance, which may not be written yet.
    pub(crate) fn with_last_use(&self, mut key: StoredKey) -> StoredKey {
        let here = self.look_up(&key.digest).and_then(|known| known.last_use());
        key.last_used_at = key.last_used_at.max(here);
        key
    }

    /// Writes which keys this instance has seen, before it stops.
    pub(crate) async fn record_uses(&self) -> Result<(), StorageError> {
        self.record_uses_since(NEVER).await
    }

    async fn record_uses_since(&self, since: i64) -> Result<(), StorageError> {
        let uses: Vec<_> = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            let used = known.values().filter_map(|known| {
                let at = known.last_use()?;
                (at.as_microsecond() >= since).then(|| (known.key.id.clone(), at))
            });
            used.collect()
        };
        if uses.is_empty() {
            return Ok(());
        }
        self.store.record_use(&uses).await
    }

    /// Removes the keys that expired long ago, if there are any.
    async fn forget_expired(&self) -> Result<(), StorageError> {
        let Ok(before) = Timestamp::now().checked_sub(FORGET_AFTER) else {
            return Ok(());
        };
        let has_old = {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            let mut keys = known.values();
            keys.any(|known| known.key.expires_at.is_some_and(|end| end < before))
        };
        if has_old {
            self.store.remove_expired(before).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
