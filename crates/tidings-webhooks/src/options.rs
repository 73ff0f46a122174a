use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::Timestamp;
use tidings::retry::Schedule;
use tidings::{LaneConfig, Sender};

use crate::Error;
use crate::clock::Wall;
use crate::encryption::EncryptionKeys;
use crate::settings::check_schedule;
use crate::target::MAX_QUEUED;

/// Below this, an instance would do little else than renew its leases; above it, a crash would hold
/// deliveries back for ever.
const LEASES: RangeInclusive<Duration> = Duration::from_millis(100)..=DAY;

const POLL_INTERVALS: RangeInclusive<Duration> = Duration::from_millis(10)..=DAY;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How webhooks are sent. Everything is checked by [`Webhooks::start`](crate::Webhooks::start).
///
/// | option | default |
/// |---|---|
/// | schedule | 0 s, 5 s, 5 min, 30 min, 2 h, 5 h, 10 h, 14 h, 20 h, 24 h |
/// | timeout of an attempt | 20 s |
/// | workers | 64 |
/// | sender | `Sender::builder().build()`, which allows every address |
/// | disabled after | five days without a success |
/// | lease of a lane | 30 s |
/// | poll interval | 1 s |
/// | lanes of an instance | 10,000 |
/// | age of accepted events whose deliveries are made | no limit |
/// | keys that encrypt secrets | none |
#[derive(Debug, Clone)]
#[must_use]
pub struct Options {
    pub(crate) schedule: Vec<Duration>,
    pub(crate) timeout: Duration,
    pub(crate) workers: usize,
    pub(crate) disable_after: Option<Duration>,
    pub(crate) lease: Duration,
    pub(crate) poll_interval: Duration,
    pub(crate) max_lanes: usize,
    pub(crate) max_event_age: Option<Duration>,
    pub(crate) lane: LaneConfig,
    pub(crate) sender: Option<Sender>,
    pub(crate) encryption: EncryptionKeys,
    pub(crate) wall: Wall,
}

impl Default for Options {
    fn default() -> Self {
        let retries = Schedule::standard_webhooks();
        Self {
            schedule: [&[Duration::ZERO], retries.delays()].concat(),
            timeout: Duration::from_secs(20),
            workers: 64,
            disable_after: Some(DAY * 5),
            lease: Duration::from_secs(30),
            poll_interval: Duration::from_secs(1),
            max_lanes: 10_000,
            max_event_age: None,
            lane: LaneConfig::default(),
            sender: None,
            encryption: EncryptionKeys::default(),
            wall: Wall::default(),
        }
    }
}

impl Options {
    /// Sets the wait before each attempt of a delivery, the first one included, for endpoints
    /// without a schedule of their own: at least one wait, and at most 101 of at most 30 days each. Up to
    /// a fifth is added to each wait but the first.
    pub fn with_schedule(mut self, waits: impl IntoIterator<Item = Duration>) -> Self {
        self.schedule = waits.into_iter().collect();
        self
    }

    /// Sets the deadline of one attempt, for endpoints without one of their own: more than zero, at most
    /// an hour.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how many attempts can be under way at once, besides slow ones: 1 to 10,000.
    pub fn with_workers(mut self, workers: usize) -> Self {
        self.workers = workers;
        self
    }

    /// Sets after how long without a success a failing endpoint is disabled.
    pub fn with_disable_after(mut self, time: Duration) -> Self {
        self.disable_after = Some(time);
        self
    }

    /// Never disables an endpoint because it fails.
    pub fn without_disabling(mut self) -> Self {
        self.disable_after = None;
        self
    }

    /// Sets how long a lane stays with an instance that has crashed: 100 milliseconds to a day. It is
    /// renewed three times as often.
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// Sets how often to look for work whose wake-up was lost: every 10 milliseconds to once a day.
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets how many lanes this instance serves at a time, at most: 1 or more.
    pub fn with_max_lanes(mut self, lanes: usize) -> Self {
        self.max_lanes = lanes;
        self
    }

    /// Sets how long accepted events stay in their stream once their deliveries are made, to the millisecond: more
    /// than zero. At most 10,000 messages with such events stay in any case. Deliveries have their own copy. The
    /// instance that started last decides for all on one store.
    pub fn with_max_event_age(mut self, age: Duration) -> Self {
        self.max_event_age = Some(age);
        self
    }

    /// Sets how an endpoint is treated: the limit on its attempts under way, and its circuit breaker.
    /// Its queue and its retries in this configuration are ignored.
    pub fn with_lane(mut self, lane: LaneConfig) -> Self {
        self.lane = lane;
        self
    }

    /// Sends through this sender, which decides how connections are made, and to which addresses. Its
    /// address policy also decides which URLs an endpoint may have. Clones of a sender share its
    /// connections.
    ///
    /// URLs from users of the application need
    /// [`AddressPolicy::PublicOnly`](tidings::AddressPolicy::PublicOnly):
    ///
    /// ```
    /// # fn example() -> Result<(), tidings::ConfigError> {
    /// use tidings::{AddressPolicy, Sender};
    /// use tidings_webhooks::Options;
    ///
    /// let sender = Sender::builder()
    ///     .address_policy(AddressPolicy::PublicOnly)
    ///     .build()?;
    /// let options = Options::default().with_sender(sender);
    /// # Ok(()) }
    /// ```
    pub fn with_sender(mut self, sender: Sender) -> Self {
        self.sender = Some(sender);
        self
    }

    /// Encrypts the secrets of endpoints where they are stored. Without a key, they are stored as they are.
    pub fn with_encryption_keys(mut self, keys: EncryptionKeys) -> Self {
        self.encryption = keys;
        self
    }

    /// Replaces the wall clock, for tests. Times that are shown are read from it; waiting does not
    /// use it.
    pub fn with_wall_clock(mut self, now: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        self.wall = Wall::new(now);
        self
    }

    /// Checks what would otherwise show only when something is sent. The workers are checked by the
    /// dispatcher.
    pub(crate) fn check(&self) -> Result<(), Error> {
        check_schedule(&self.schedule)?;
        let endpoint = tidings::Endpoint::builder("http://localhost").timeout(self.timeout);
        if endpoint.build().is_err() {
            let expected = "more than zero and at most an hour";
            return Err(Error::invalid("timeout", expected));
        }
        if !LEASES.contains(&self.lease) {
            return Err(Error::invalid("lease", "100 milliseconds to a day"));
        }
        if !POLL_INTERVALS.contains(&self.poll_interval) {
            return Err(Error::invalid("poll_interval", "10 milliseconds to a day"));
        }
        if self.max_lanes == 0 {
            return Err(Error::invalid("max_lanes", "at least 1"));
        }
        if self.max_event_age.is_some_and(|age| age.is_zero()) {
            return Err(Error::invalid("max_event_age", "more than zero"));
        }
        self.lane_of_endpoint().check()?;
        Ok(())
    }

    /// The lane of each endpoint. The store has what waits, and decides on retries.
    pub(crate) fn lane_of_endpoint(&self) -> LaneConfig {
        let lane = self.lane.clone();
        lane.with_queue_size(MAX_QUEUED).without_retry()
    }
}
