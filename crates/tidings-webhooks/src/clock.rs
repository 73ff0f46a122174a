//! The clock by which deliveries wait.
//!
//! Waiting must not depend on the setting of the wall clock: a retry that is due in five seconds comes
//! in five seconds, also when the clock is set back an hour meanwhile. So times at which something is
//! *due* are those of a clock that is read from the wall clock once, when the process starts, and moved on
//! by the monotonic clock; and it is never behind what the store has seen before, so that a restart,
//! or another instance of the cluster, does not go back either. Times that are *shown* are those of
//! the wall.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use crate::Delivery;

/// Reads the wall clock.
#[derive(Clone)]
pub(crate) struct Wall(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Wall {
    pub(crate) fn new(read: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The present to the microsecond, which is what stores keep.
    pub(crate) fn now(&self) -> Timestamp {
        to_microseconds((self.0)())
    }
}

impl Default for Wall {
    fn default() -> Self {
        Self::new(Timestamp::now)
    }
}

impl fmt::Debug for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wall")
    }
}

/// The clock of what is due. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    base: Arc<Mutex<(Timestamp, Instant)>>,
    pub(crate) wall: Wall,
}

impl Clock {
    pub(crate) fn new(wall: Wall) -> Self {
        let now = wall.now();
        Self {
            base: Arc::new(Mutex::new((now, Instant::now()))),
            wall,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        // The pair is whole at every moment, so a poisoned lock is still right.
        let (base, since) = *self.base.lock().unwrap_or_else(PoisonError::into_inner);
        later(base, since.elapsed())
    }

    /// Moves the clock forward to what others have; never back.
    pub(crate) fn catch_up(&self, with: Timestamp) {
        let now = self.now();
        if with > now {
            *self.base.lock().unwrap_or_else(PoisonError::into_inner) = (with, Instant::now());
        }
    }

    /// How long until a time of this clock; zero when it has passed.
    pub(crate) fn until(&self, due: Timestamp) -> Duration {
        Duration::try_from(due.duration_since(self.now())).unwrap_or_default()
    }

    /// What a time of this clock is by the wall clock. The clocks are compared to the millisecond, because they are not
    /// read at the same moment.
    pub(crate) fn shown(&self, due: Timestamp) -> Timestamp {
        let ahead = self.wall.now().duration_since(self.now());
        let ahead = SignedDuration::from_millis_i128(ahead.as_millis());
        due.checked_add(ahead).unwrap_or(due)
    }

    /// Has a delivery show the time of its next attempt by the wall clock.
    pub(crate) fn show(&self, delivery: &mut Delivery) {
        delivery.next_attempt_at = delivery.next_attempt_at.map(|due| self.shown(due));
    }
}

/// The time after a wait, or the latest time that there is.
pub(crate) fn later(time: Timestamp, by: Duration) -> Timestamp {
    time.checked_add(by).map_or(Timestamp::MAX, to_microseconds)
}

/// A time as a store keeps it.
pub(crate) fn to_microseconds(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond()).unwrap_or(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};

    #[tokio::test(start_paused = true)]
    async fn what_is_due_does_not_follow_the_wall() {
        let wall = Arc::new(AtomicI64::new(1_000_000));
        let read = Arc::clone(&wall);
        let clock = Clock::new(Wall::new(move || {
            Timestamp::from_second(read.load(Ordering::Relaxed)).unwrap()
        }));
        let due = later(clock.now(), Duration::from_secs(5));
        wall.fetch_sub(3600, Ordering::Relaxed);
        assert_eq!(clock.until(due), Duration::from_secs(5));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(clock.until(due), Duration::ZERO);
        assert_eq!(clock.shown(due).as_second(), 1_000_000 - 3600);
    }

    #[tokio::test(start_paused = true)]
    async fn regression_a_time_is_shown_as_the_same_each_time() {
        let wall = AtomicI64::new(1_000_000);
        let clock = Clock::new(Wall::new(move || {
            Timestamp::from_microsecond(wall.fetch_add(10, Ordering::Relaxed)).unwrap()
        }));
        let due = clock.now();
        assert_eq!([clock.shown(due), clock.shown(due)], [due, due]);
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_never_behind_what_the_store_has_seen() {
        let clock = Clock::new(Wall::default());
        let now = clock.now();
        clock.catch_up(later(now, Duration::from_secs(60)));
        clock.catch_up(now);
        assert_eq!(clock.now(), later(now, Duration::from_secs(60)));
    }
}
