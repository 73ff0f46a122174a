use std::time::Duration;

use crate::presence::PresenceError;

/// How long a lease lasts after a heartbeat, unless set: how late a crash is noticed.
pub const DEFAULT_LEASE_TTL: Duration = Duration::from_secs(30);

/// How long a user must be offline before it is reported, unless set: longer than it takes to reload a
/// page, or to change from one network to another.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(15);

/// How often a tracker that is watched asks for transitions, unless set.
pub const DEFAULT_WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// How many items a watch may be behind, unless set.
pub const DEFAULT_WATCH_BUFFER: usize = 1024;

/// Shortest and longest time to live: heartbeats are three times as frequent, and stores forget what no
/// instance renews for a day.
const TTL: [Duration; 2] = [Duration::from_millis(30), Duration::from_secs(60 * 60)];

/// Longest grace and interval: longer ones would overflow the clock.
pub(super) const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How a [`Tracker`](super::Tracker) works.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct TrackerOptions {
    pub(super) ttl: Duration,
    pub(super) grace: Duration,
    pub(super) watch_interval: Duration,
}

impl Default for TrackerOptions {
    fn default() -> Self {
        Self {
            ttl: DEFAULT_LEASE_TTL,
            grace: DEFAULT_GRACE,
            watch_interval: DEFAULT_WATCH_INTERVAL,
        }
    }
}

impl TrackerOptions {
    /// Sets how long the lease of this instance lasts after a heartbeat, from 30 milliseconds to an
    /// hour. The default is [`DEFAULT_LEASE_TTL`]. A heartbeat is sent after each third of it, so that
    /// two may fail.
    pub fn with_lease_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Sets how long a user must be offline before a [`Watch`](super::Watch) of this tracker reports
    /// it; at most a year. The default is [`DEFAULT_GRACE`]; zero reports at once.
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets how often transitions are asked for while there is a watch: a millisecond to a year.
    /// The default is [`DEFAULT_WATCH_INTERVAL`].
    pub fn with_watch_interval(mut self, interval: Duration) -> Self {
        self.watch_interval = interval;
        self
    }

    pub(super) fn check(self) -> Result<(), PresenceError> {
        let [shortest, longest] = TTL;
        if !(shortest..=longest).contains(&self.ttl) {
            return Err(PresenceError::InvalidOption {
                field: "lease_ttl",
                expected: "30 milliseconds to an hour",
            });
        }
        if self.grace > YEAR {
            return Err(PresenceError::InvalidOption {
                field: "grace",
                expected: "at most a year",
            });
        }
        if !(Duration::from_millis(1)..=YEAR).contains(&self.watch_interval) {
            return Err(PresenceError::InvalidOption {
                field: "watch_interval",
                expected: "a millisecond to a year",
            });
        }
        Ok(())
    }
}
