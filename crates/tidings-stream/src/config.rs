use std::num::{NonZeroU32, NonZeroU64};
use std::ops::RangeInclusive;
use std::time::Duration;

use jiff::Timestamp;

use crate::engine::ClaimOptions;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
use crate::engine::time;
use crate::{Error, MessageId, Result};

/// The name prefix and the default retention of one [`Streams`](crate::Streams) handle.
#[derive(Debug, Clone)]
#[must_use]
pub struct ServiceConfig {
    pub(crate) app: String,
    pub(crate) namespace: String,
    pub(crate) retention: Option<Retention>,
    pub(crate) janitor_interval: Duration,
}

impl Default for ServiceConfig {
    /// `app`, `default`, no retention set, a janitor every 30 seconds.
    fn default() -> Self {
        Self {
            app: "app".to_owned(),
            namespace: "default".to_owned(),
            retention: None,
            janitor_interval: Duration::from_secs(30),
        }
    }
}

impl ServiceConfig {
    /// Sets the application's name, the first part of every stream's name: 1 to 255 bytes without
    /// a full stop, which the first use checks. The default is `app`.
    pub fn with_app(mut self, app: impl Into<String>) -> Self {
        self.app = app.into();
        self
    }

    /// Sets the namespace, the second part of every stream's name: 1 to 255 bytes without a full
    /// stop, which the first use checks. The default is `default`.
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Sets the retention that every publish stores with its stream. By default a publish leaves the
    /// stored one alone.
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.retention = Some(retention);
        self
    }

    /// Sets how often streams are trimmed without a publish: a millisecond to a day, which the first use
    /// checks. The default is 30 seconds.
    pub fn with_janitor_interval(mut self, interval: Duration) -> Self {
        self.janitor_interval = interval;
        self
    }

    /// Refuses an interval outside its range. Names are checked where they are put together.
    pub(crate) fn check(&self) -> Result<()> {
        if !(Duration::from_millis(1)..=DAY).contains(&self.janitor_interval) {
            return Err(Error::InvalidOption {
                field: "janitor_interval",
                expected: "a millisecond to a day",
            });
        }
        Ok(())
    }
}

/// How much of its past a stream keeps.
///
/// It is stored with the stream. [`Streams::set_retention`](crate::Streams::set_retention) sets it, and
/// so does a publish [with a retention](ServiceConfig::with_retention): the last one wins. A stream
/// without one keeps everything, and so does one whose retention is the default.
///
/// A bound never removes what a group of the stream has yet to read or to acknowledge, so an
/// abandoned group holds its stream until it is [deleted](crate::Streams::delete_group);
/// [`with_pending_trimmed`](Self::with_pending_trimmed) lifts that protection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Retention {
    /// The bound on length: see [`with_max_len`](Self::with_max_len).
    pub max_len: Option<NonZeroU64>,
    /// The bound on age: see [`with_max_age`](Self::with_max_age).
    pub max_age: Option<Duration>,
    /// Whether the bounds reach messages that a group has yet to handle.
    pub trim_pending: bool,
}

impl Retention {
    /// Keeps the newest `messages`; zero means no such bound, which is the default.
    pub fn with_max_len(mut self, messages: u64) -> Self {
        self.max_len = NonZeroU64::new(messages);
        self
    }

    /// Keeps what is younger than `age`, to the millisecond, by the wall clock; zero means no such
    /// bound, which is the default.
    pub fn with_max_age(mut self, age: Duration) -> Self {
        self.max_age = (!age.is_zero()).then_some(age);
        self
    }

    /// Keeps to the bounds even where that removes messages that a group has yet to handle. They
    /// are counted as [`lost_to_trim`](crate::GroupStats::lost_to_trim), and the group continues
    /// behind them.
    pub fn with_pending_trimmed(mut self) -> Self {
        self.trim_pending = true;
        self
    }

    /// The bounds as databases keep them: messages, and milliseconds.
    #[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
    pub(crate) fn bounds(&self) -> (Option<i64>, Option<i64>) {
        let messages = |max: NonZeroU64| i64::try_from(max.get()).unwrap_or(i64::MAX);
        (self.max_len.map(messages), self.max_age.map(time::millis))
    }
}

/// Where a new group begins, or one that [seeks](crate::Streams::seek) continues. A group that exists
/// subscribes at its own position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartFrom {
    /// After the newest message at that moment.
    #[default]
    Latest,
    /// At the oldest message that is kept.
    Earliest,
    /// After this message, or at the oldest that is kept when that is later.
    After(MessageId),
    /// At the oldest kept message that was appended at this time or later; after the newest when
    /// there is none.
    ///
    /// It is found by halving, which takes the times of a stream to rise. Where the wall clock was
    /// set back it may begin anywhere among the messages of the time that came twice.
    At(Timestamp),
}

/// How long a failed message waits for its next attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryDelay {
    first: Duration,
    max: Duration,
}

impl RetryDelay {
    /// The same delay each time.
    pub fn fixed(delay: Duration) -> Self {
        Self {
            first: delay,
            max: delay,
        }
    }

    /// A delay that doubles from `first` with every attempt, up to `max`, which is at least `first`.
    pub fn exponential(first: Duration, max: Duration) -> Self {
        Self { first, max }
    }

    /// The delay after the failure of an attempt, counted from 1.
    pub fn after(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.max)
    }
}

/// How a subscription works through its stream.
#[derive(Debug, Clone)]
#[must_use]
pub struct SubscribeOptions {
    pub(crate) start: StartFrom,
    pub(crate) concurrency: usize,
    pub(crate) max_batch: usize,
    pub(crate) max_retries: Option<u32>,
    pub(crate) retry_delay: Option<RetryDelay>,
    pub(crate) poll_interval: Duration,
    pub(crate) visibility_timeout: Duration,
    pub(crate) in_key_order: bool,
    pub(crate) max_in_flight: Option<NonZeroU32>,
    pub(crate) handler_timeout: Option<Duration>,
    pub(crate) shutdown_timeout: Duration,
    pub(crate) dead_letter_stream: Option<String>,
}

impl Default for SubscribeOptions {
    /// Starts at the latest message, one handler at a time, 3 retries, a poll every second, 30
    /// seconds of visibility timeout and as many for closing.
    fn default() -> Self {
        Self {
            start: StartFrom::Latest,
            concurrency: 1,
            max_batch: 100,
            max_retries: Some(3),
            retry_delay: None,
            poll_interval: Duration::from_secs(1),
            visibility_timeout: Duration::from_secs(30),
            in_key_order: false,
            max_in_flight: None,
            handler_timeout: None,
            shutdown_timeout: Duration::from_secs(30),
            dead_letter_stream: None,
        }
    }
}

/// Most handlers of one subscription at a time.
const MAX_CONCURRENCY: usize = 65_536;

/// Most messages of one call of a batch handler.
const MAX_BATCH: usize = 1000;

/// Below this, a consumer would do little else than poll; above it, polling would repair nothing.
const POLL_INTERVALS: RangeInclusive<Duration> = Duration::from_millis(10)..=DAY;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Shortest visibility timeout. Below it, one slow commit would already make a duplicate.
const MIN_VISIBILITY_TIMEOUT: Duration = Duration::from_millis(10);

/// Longest visibility timeout: what survives the death of a machine should come back some day.
const MAX_VISIBILITY_TIMEOUT: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl SubscribeOptions {
    /// Sets where the group begins if this subscription creates it. The default is
    /// [`StartFrom::Latest`].
    pub fn with_start(mut self, start: StartFrom) -> Self {
        self.start = start;
        self
    }

    /// Sets how many messages are handled at a time, 1 to 65,536; zero means 1. The default is 1.
    ///
    /// It bounds what the subscription claims, too: a message is claimed only when a handler is
    /// free to start on it.
    pub fn with_concurrency(mut self, handlers: usize) -> Self {
        self.concurrency = handlers.max(1);
        self
    }

    /// Sets how many messages one call of a [`BatchHandler`](crate::BatchHandler) gets at most, 1 to
    /// 1,000; zero means 1. The default is 100. A [`Handler`](crate::Handler) always gets one.
    ///
    /// A batch is what is there: nothing waits for it to fill up. One claim brings the batches of
    /// all free handlers, up to 512 messages or one batch.
    pub fn with_max_batch(mut self, messages: usize) -> Self {
        self.max_batch = messages.max(1);
        self
    }

    /// Sets how many attempts may follow the first before a message is a dead letter. The default
    /// is 3, four attempts in all.
    pub fn with_max_retries(mut self, retries: u32) -> Self {
        self.max_retries = Some(retries);
        self
    }

    /// Tries every message until it succeeds or its handler
    /// [gives up](crate::HandlerError::skip_retry).
    pub fn with_unlimited_retries(mut self) -> Self {
        self.max_retries = None;
        self
    }

    /// Sets how long a failed message waits, unless its handler says otherwise. The default is the
    /// visibility timeout.
    pub fn with_retry_delay(mut self, delay: RetryDelay) -> Self {
        self.retry_delay = Some(delay);
        self
    }

    /// Sets how often to look for messages without being woken: 10 milliseconds to a day. The default
    /// is a second.
    ///
    /// A publish wakes the subscription at once, in another process too if the engine has
    /// notifications. Polling finds messages whose wake-up was lost. All idle subscriptions of a process share
    /// one call to the store.
    pub fn with_poll_interval(mut self, interval: Duration) -> Self {
        self.poll_interval = interval;
        self
    }

    /// Sets how long a claimed message stays hidden from the rest of the group, 10 milliseconds to
    /// 30 days. The default is 30 seconds.
    ///
    /// It is the time after which the messages of a crashed process come back.
    ///
    /// A handler that blocks its thread for longer cannot be stopped, so its claim is extended for it. If
    /// that fails and its own consumer claims the message again, the handler continues with the new claim,
    /// and what it decides holds. If another consumer claims it, the message is handled twice.
    pub fn with_visibility_timeout(mut self, timeout: Duration) -> Self {
        self.visibility_timeout = timeout;
        self
    }

    /// Keeps the order of [ordering keys](crate::NewMessage::with_ordering_key): of the messages of a key, one
    /// at a time is with a handler, in their order, whichever consumers the group has. One that failed holds
    /// back the later ones of its key, and no others, until it is handled or dead. If its consumer crashes,
    /// that is at most for the visibility timeout.
    ///
    /// All consumers of the group have to set it: a claim of one that does not is not seen by those that do.
    /// Each message of such a group takes a place in the store of its own, and so do those that wait for
    /// their keys: a claim passes up to 500 of them at a time and none of them again.
    pub fn with_key_order(mut self) -> Self {
        self.in_key_order = true;
        self
    }

    /// Sets how many messages the whole group may have claimed at a time, all its consumers together; zero
    /// means no such bound, which is the default. All consumers of the group should set the same.
    ///
    /// A consumer that finds the group at its bound claims again when one of its own process has settled
    /// messages, and otherwise at the next poll.
    pub fn with_max_in_flight(mut self, messages: u32) -> Self {
        self.max_in_flight = NonZeroU32::new(messages);
        self
    }

    /// Sets how long one handler may run, from a millisecond; then its future is dropped and the
    /// attempt counts as failed.
    ///
    /// By default a handler has the visibility timeout less a tenth, or less a second where that is
    /// shorter, so that it never runs on while another consumer has its message. When more is set,
    /// the claim is extended for as long as the handler runs.
    pub fn with_handler_timeout(mut self, timeout: Duration) -> Self {
        self.handler_timeout = Some(timeout);
        self
    }

    /// Sets how long closing waits for handlers that are running; zero drops them at once. The default
    /// is 30 seconds.
    pub fn with_shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.shutdown_timeout = timeout;
        self
    }

    /// Sets the stream that takes the dead letters, in the same application and namespace. The
    /// default is `<stream>.dead`.
    pub fn with_dead_letter_stream(mut self, name: impl Into<String>) -> Self {
        self.dead_letter_stream = Some(name.into());
        self
    }

    /// Refuses settings outside their ranges.
    pub(crate) fn check(&self) -> Result<()> {
        let refuse = |field, expected| Err(Error::InvalidOption { field, expected });
        if self.concurrency > MAX_CONCURRENCY {
            return refuse("concurrency", "1 to 65,536");
        }
        if !(MIN_VISIBILITY_TIMEOUT..=MAX_VISIBILITY_TIMEOUT).contains(&self.visibility_timeout) {
            return refuse("visibility_timeout", "10 milliseconds to 30 days");
        }
        if self.max_batch > MAX_BATCH {
            return refuse("max_batch", "1 to 1,000");
        }
        if !POLL_INTERVALS.contains(&self.poll_interval) {
            return refuse("poll_interval", "10 milliseconds to a day");
        }
        if self
            .retry_delay
            .is_some_and(|delay| delay.max < delay.first)
        {
            return refuse(
                "retry_delay",
                "a first delay that is not longer than the longest",
            );
        }
        if self
            .handler_timeout
            .is_some_and(|timeout| timeout < Duration::from_millis(1))
        {
            return refuse("handler_timeout", "at least a millisecond");
        }
        Ok(())
    }

    pub(crate) fn claim_options(&self) -> ClaimOptions {
        ClaimOptions {
            visibility: self.visibility_timeout,
            in_key_order: self.in_key_order,
            max_in_flight: self.max_in_flight,
        }
    }

    /// How many attempts a message gets, the first included; `None` is no bound.
    pub(crate) fn max_attempts(&self) -> Option<u32> {
        self.max_retries.map(|retries| retries.saturating_add(1))
    }

    /// How long a message waits after the failure of an attempt.
    pub(crate) fn delay_after(&self, attempt: u32) -> Duration {
        match self.retry_delay {
            Some(delay) => delay.after(attempt),
            None => self.visibility_timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn delays_double_up_to_their_bound() {
        let delay = RetryDelay::exponential(Duration::from_secs(1), Duration::from_secs(5));
        let delays = [1, 2, 3, 4, u32::MAX].map(|attempt| delay.after(attempt).as_secs());
        assert_eq!(delays, [1, 2, 4, 5, 5]);
        let fixed = RetryDelay::fixed(Duration::from_secs(7));
        assert_eq!(fixed.after(9), Duration::from_secs(7));
        let longest = RetryDelay::exponential(Duration::MAX, Duration::MAX);
        assert_eq!(longest.after(u32::MAX), Duration::MAX);
    }

    #[test]
    fn defaults_are_those_of_the_documentation() {
        let options = SubscribeOptions::default();
        assert_eq!(options.max_attempts(), Some(4));
        assert_eq!(options.delay_after(1), Duration::from_secs(30));
        assert_eq!(options.start, StartFrom::Latest);
        assert_eq!(options.concurrency, 1);
        assert_eq!(options.poll_interval, Duration::from_secs(1));
        assert_eq!(options.visibility_timeout, Duration::from_secs(30));
        assert_eq!(options.shutdown_timeout, Duration::from_secs(30));
        assert_eq!(options.dead_letter_stream, None);
        options.check().unwrap();
        let config = ServiceConfig::default();
        assert_eq!((&*config.app, &*config.namespace), ("app", "default"));
        assert_eq!(config.retention, None);
        assert_eq!(config.janitor_interval, Duration::from_secs(30));
    }

    #[test]
    fn zero_handlers_and_batches_of_none_are_one() {
        let options = SubscribeOptions::default();
        let options = options.with_concurrency(0).with_max_batch(0);
        assert_eq!((options.concurrency, options.max_batch), (1, 1));
        options.check().unwrap();
    }

    #[tokio::test]
    async fn a_janitor_interval_outside_its_range_is_refused_at_the_first_use() {
        for interval in [Duration::ZERO, DAY + Duration::from_nanos(1)] {
            let config = ServiceConfig::default().with_janitor_interval(interval);
            let streams = crate::Streams::new(Arc::new(crate::MemoryEngine::new()), config);
            match streams.publish_batch("s", Vec::new()).await {
                Err(Error::InvalidOption { field, .. }) => assert_eq!(field, "janitor_interval"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn settings_outside_their_range_are_refused_by_field() {
        let default = SubscribeOptions::default;
        for (options, wrong) in [
            (default().with_concurrency(usize::MAX), "concurrency"),
            (
                default().with_visibility_timeout(Duration::ZERO),
                "visibility_timeout",
            ),
            (
                default().with_visibility_timeout(Duration::MAX),
                "visibility_timeout",
            ),
            (default().with_max_batch(1001), "max_batch"),
            (
                default().with_poll_interval(Duration::ZERO),
                "poll_interval",
            ),
            (default().with_poll_interval(Duration::MAX), "poll_interval"),
            (
                default().with_retry_delay(RetryDelay::exponential(DAY, Duration::ZERO)),
                "retry_delay",
            ),
            (
                default().with_handler_timeout(Duration::ZERO),
                "handler_timeout",
            ),
        ] {
            match options.check() {
                Err(Error::InvalidOption { field, .. }) => assert_eq!(field, wrong),
                other => panic!("{other:?}"),
            }
        }
        for interval in [*POLL_INTERVALS.start(), *POLL_INTERVALS.end()] {
            default().with_poll_interval(interval).check().unwrap();
        }
    }
}
