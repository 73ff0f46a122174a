//! How often something may happen for each of many keys.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::StateInformationMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use tokio::time::Instant;

/// Keys that are kept before those are looked for that need not be.
const FEW_KEYS: usize = 1024;

/// So many a second for each key, and up to a second's worth at once.
///
/// A key is kept for a second after its last use at most, so that the memory is bounded by what can
/// happen in a second or two.
pub(crate) struct Rate<K: Eq + Hash + Clone> {
    per_second: NonZeroU32,
    clock: SinceStart,
    states: States<K>,
    /// Locked while something is taken, so that a part of it can be given back.
    limiter: Mutex<Limiter<K>>,
}

type Limiter<K> = RateLimiter<K, States<K>, SinceStart, StateInformationMiddleware>;

/// Why nothing was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exceeded<K> {
    /// The key may have as many after this time.
    For(K, Duration),
    /// They are more than the key may have at once, whenever that is.
    Always(K),
}

impl<K> Exceeded<K> {
    /// After what time it is worth trying again.
    pub(crate) fn wait(&self) -> Duration {
        match self {
            Self::For(_, wait) => *wait,
            Self::Always(_) => Duration::from_secs(1),
        }
    }
}

impl<K: Eq + Hash + Clone> Rate<K> {
    pub(crate) fn new(per_second: NonZeroU32) -> Self {
        let clock = SinceStart(Instant::now());
        let states = States::default();
        let quota = Quota::per_second(per_second);
        let limiter = RateLimiter::new(quota, states.clone(), clock.clone());
        Self {
            per_second,
            clock,
            states,
            limiter: Mutex::new(limiter),
        }
    }

    pub(crate) fn per_second(&self) -> NonZeroU32 {
        self.per_second
    }

    /// Takes one for a key, and returns how many are left at this moment.
    pub(crate) fn take(&self, key: &K) -> Result<u32, Exceeded<K>> {
        let limiter = self.lock();
        self.states.forget_the_old(self.clock.now());
        self.take_some(&limiter, key, NonZeroU32::MIN)
    }

    /// Takes a number for each of several keys, or nothing.
    pub(crate) fn take_all(
        &self,
        wanted: impl IntoIterator<Item = (K, NonZeroU32)>,
    ) -> Result<(), Exceeded<K>> {
        let limiter = self.lock();
        self.states.forget_the_old(self.clock.now());
        let mut before = Vec::new();
        for (key, count) in wanted {
            let state = self.states.lock().by_key.get(&key).copied();
            if let Err(exceeded) = self.take_some(&limiter, &key, count) {
                for (key, state) in before {
                    self.states.put_back(key, state);
                }
                return Err(exceeded);
            }
            before.push((key, state));
        }
        Ok(())
    }

    /// Gives a number of what was taken for a key back.
    pub(crate) fn give_back(&self, key: &K, count: NonZeroU32) {
        let _limiter = self.lock();
        let each = Duration::from_secs(1) / self.per_second.get();
        let taken = Nanos::from(each * count.get());
        if let Some(full_at) = self.states.lock().by_key.get_mut(key) {
            *full_at = full_at.saturating_sub(taken);
        }
    }

    fn take_some(
        &self,
        limiter: &Limiter<K>,
        key: &K,
        count: NonZeroU32,
    ) -> Result<u32, Exceeded<K>> {
        match limiter.check_key_n(key, count) {
            Ok(Ok(taken)) => Ok(taken.remaining_burst_capacity()),
            Ok(Err(not_until)) => {
                let wait = not_until.wait_time_from(self.clock.now());
                Err(Exceeded::For(key.clone(), wait))
            }
            Err(_more_than_all) => Err(Exceeded::Always(key.clone())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Limiter<K>> {
        // A panic leaves some more taken than was used, for a second.
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> fmt::Debug for Rate<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rate")
            .field("per_second", &self.per_second)
            .finish_non_exhaustive()
    }
}

/// The clock of the runtime.
#[derive(Debug, Clone)]
struct SinceStart(Instant);

impl Clock for SinceStart {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// The states of the keys. Clones share them.
#[derive(Debug, Clone)]
struct States<K>(Arc<Mutex<Kept<K>>>);

#[derive(Debug)]
struct Kept<K> {
    /// When each key has as many as it may have at most.
    by_key: HashMap<K, Nanos>,
    /// With so many keys, those are looked for that need not be kept.
    many: usize,
}

impl<K> Default for States<K> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Kept {
            by_key: HashMap::new(),
            many: FEW_KEYS,
        })))
    }
}

impl<K: Eq + Hash> States<K> {
    fn put_back(&self, key: K, state: Option<Nanos>) {
        let by_key = &mut self.lock().by_key;
        match state {
            Some(state) => by_key.insert(key, state),
            None => by_key.remove(&key),
        };
    }

    /// Forgets the keys that have as many as one that was never used.
    fn forget_the_old(&self, now: Duration) {
        let mut kept = self.lock();
        if kept.by_key.len() < kept.many {
            return;
        }
        let now = Nanos::from(now);
        kept.by_key.retain(|_, full_at| *full_at > now);
        let left = kept.by_key.len();
        kept.by_key.shrink_to(2 * left);
        kept.many = FEW_KEYS.max(2 * left);
    }

    fn lock(&self) -> MutexGuard<'_, Kept<K>> {
        // The map is whole after every statement, so a panic elsewhere leaves nothing half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash + Clone> StateStore for States<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let by_key = &mut self.lock().by_key;
        let (decided, state) = decide(by_key.get(key).copied())?;
        by_key.insert(key.clone(), state);
        Ok(decided)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn rate(per_second: u32) -> Rate<u32> {
        Rate::new(number(per_second))
    }

    fn number(number: u32) -> NonZeroU32 {
        NonZeroU32::new(number).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_seconds_worth_may_come_at_once_and_then_one_after_the_other() {
        let rate = rate(4);
        for left in [3, 2, 1, 0] {
            assert_eq!(rate.take(&1), Ok(left));
        }
        let wait = Duration::from_millis(250);
        assert_eq!(rate.take(&1), Err(Exceeded::For(1, wait)));
        // Another key has its own, and what was refused costs nothing.
        assert_eq!(rate.take(&2), Ok(3));
        advance(wait).await;
        assert_eq!(rate.take(&1), Ok(0));
        assert_eq!(rate.take(&1), Err(Exceeded::For(1, wait)));
        advance(Duration::from_secs(10)).await;
        assert_eq!(rate.take(&1), Ok(3));
    }

    #[tokio::test(start_paused = true)]
    async fn several_keys_get_all_or_nothing() {
        let rate = rate(4);
        rate.take_all([(1, number(3)), (2, number(1))]).unwrap();
        let wait = Duration::from_millis(250);
        let refused = rate.take_all([(3, number(4)), (2, number(2)), (1, number(2))]);
        assert_eq!(refused, Err(Exceeded::For(1, wait)));
        let never = rate.take_all([(3, number(4)), (4, number(5))]);
        assert_eq!(never, Err(Exceeded::Always(4)));
        // Neither took anything of the others.
        rate.take_all([(3, number(4)), (2, number(3)), (1, number(1))])
            .unwrap();
        for key in [1, 2, 3] {
            assert!(rate.take(&key).is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_given_back_can_be_taken_again_and_no_more() {
        let rate = rate(4);
        advance(Duration::from_secs(5)).await;
        for _ in 0..10 {
            rate.take_all([(1, number(3)), (2, number(4))]).unwrap();
            rate.give_back(&1, number(3));
            rate.give_back(&2, number(4));
            rate.give_back(&3, number(4));
        }
        for key in [1, 2, 3] {
            rate.take_all([(key, number(4))]).unwrap();
            let wait = Duration::from_millis(250);
            assert_eq!(rate.take(&key), Err(Exceeded::For(key, wait)));
        }
        // Much later, giving back leaves no more than a second's worth.
        advance(Duration::from_secs(5)).await;
        rate.give_back(&1, number(4));
        rate.take_all([(1, number(4))]).unwrap();
        assert!(rate.take(&1).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_kept_while_they_matter_and_no_longer() {
        let rate = rate(10);
        let kept = || rate.states.lock().by_key.len();
        for key in 0..50_000 {
            rate.take(&key).unwrap();
        }
        // All of them were used a moment ago.
        assert_eq!(kept(), 50_000);
        assert_eq!(rate.take(&0), Ok(8));
        advance(Duration::from_millis(200)).await;
        for key in 100_000..250_000 {
            rate.take(&key).unwrap();
            advance(Duration::from_micros(10)).await;
        }
        // One takes a tenth of a second to be replaced; twice as many may be kept until they are looked for.
        assert!(kept() <= 150_000, "{}", kept());
        advance(Duration::from_secs(1)).await;
        for key in 0..200_000 {
            rate.take(&key).unwrap();
            advance(Duration::from_micros(100)).await;
        }
        assert!(kept() <= 4096, "{}", kept());
        assert!(rate.states.lock().by_key.capacity() <= 16_384);
    }
}
