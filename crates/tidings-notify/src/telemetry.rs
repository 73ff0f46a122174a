//! What is counted, and under which names.
//!
//! The figures go to the recorder of the [`metrics`] crate that the program has installed, if any, for all
//! notifiers together. [`Notifier::metrics`](crate::Notifier::metrics) has those of one notifier.
//!
//! | name | kind | counts |
//! |---|---|---|
//! | [`SUBSCRIPTION_ACTIVE`] | gauge | streams that are open now |
//! | [`NOTIFICATION_DELIVERED`] | counter | events given to streams: one event on three screens counts three times |
//! | [`SUBSCRIPTION_GAPS`] | counter | gaps given to streams |
//! | [`ROUTING_SENT`] | counter | events handed to another instance |
//! | [`ROUTING_FAILED`] | counter | events that could not be handed to another instance, which finds them in its next sweep |
//! | [`ROUTING_DROPPED`] | counter | events that found the routing queue full; the sweep carries them |
//! | [`SWEEP_FAILED`] | counter | sweeps that failed and were left to the next |
//!
//! There is no count of dropped notifications: a stream drops none. Users are no labels.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Key, Level, Metadata, Unit, describe_counter, describe_gauge};

use crate::Item;

/// Gauge of open streams.
pub const SUBSCRIPTION_ACTIVE: &str = "tidings.subscription.active";
/// Counter of events given to streams.
pub const NOTIFICATION_DELIVERED: &str = "tidings.notification.delivered";
/// Counter of gaps given to streams.
pub const SUBSCRIPTION_GAPS: &str = "tidings.subscription.gaps";
/// Counter of events handed to another instance.
pub const ROUTING_SENT: &str = "tidings.routing.sent";
/// Counter of events that could not be handed to another instance.
pub const ROUTING_FAILED: &str = "tidings.routing.failed";
/// Counter of events that found the routing queue full.
pub const ROUTING_DROPPED: &str = "tidings.routing.dropped";
/// Counter of sweeps that failed.
pub const SWEEP_FAILED: &str = "tidings.sweep.failed";

/// The keys are made once: in memory an event is given in less time than it takes to make one.
static ACTIVE_KEY: Key = Key::from_static_name(SUBSCRIPTION_ACTIVE);
static DELIVERED_KEY: Key = Key::from_static_name(NOTIFICATION_DELIVERED);
static GAPS_KEY: Key = Key::from_static_name(SUBSCRIPTION_GAPS);
static SENT_KEY: Key = Key::from_static_name(ROUTING_SENT);
static FAILED_KEY: Key = Key::from_static_name(ROUTING_FAILED);
static DROPPED_KEY: Key = Key::from_static_name(ROUTING_DROPPED);
static SWEEP_KEY: Key = Key::from_static_name(SWEEP_FAILED);
static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// Describes the metrics to the recorder. Call it once, after installing one.
pub fn describe_metrics() {
    describe_gauge!(
        SUBSCRIPTION_ACTIVE,
        Unit::Count,
        "Streams of users that are open."
    );
    describe_counter!(
        NOTIFICATION_DELIVERED,
        Unit::Count,
        "Notifications given to streams; one on three screens counts three times."
    );
    describe_counter!(SUBSCRIPTION_GAPS, Unit::Count, "Gaps given to streams.");
    describe_counter!(
        ROUTING_SENT,
        Unit::Count,
        "Notifications handed to another instance."
    );
    describe_counter!(
        ROUTING_FAILED,
        Unit::Count,
        "Notifications that could not be handed to another instance, which finds them in its next sweep."
    );
    describe_counter!(
        ROUTING_DROPPED,
        Unit::Count,
        "Notifications that found the routing queue full; the sweep carries them."
    );
    describe_counter!(
        SWEEP_FAILED,
        Unit::Count,
        "Sweeps that failed and were left to the next."
    );
}

/// What a [`Notifier`](crate::Notifier) has done since it was built. The constants of
/// [`telemetry`](self) name the figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// [`SUBSCRIPTION_ACTIVE`].
    pub active_streams: u64,
    /// [`NOTIFICATION_DELIVERED`].
    pub delivered: u64,
    /// [`SUBSCRIPTION_GAPS`].
    pub gaps: u64,
    /// [`ROUTING_SENT`].
    pub routed: u64,
    /// [`ROUTING_FAILED`].
    pub routing_failed: u64,
    /// [`ROUTING_DROPPED`].
    pub routing_dropped: u64,
    /// [`SWEEP_FAILED`].
    pub sweeps_failed: u64,
}

/// The counters behind [`Metrics`].
#[derive(Debug, Default)]
pub(crate) struct Stats {
    opened: AtomicU64,
    closed: AtomicU64,
    delivered: AtomicU64,
    gaps: AtomicU64,
    routed: AtomicU64,
    routing_failed: AtomicU64,
    routing_dropped: AtomicU64,
    sweeps_failed: AtomicU64,
}

impl Stats {
    pub(crate) fn snapshot(&self) -> Metrics {
        // Read before `opened`, so that the difference is never negative.
        let closed = self.closed.load(Ordering::Acquire);
        let opened = self.opened.load(Ordering::Acquire);
        Metrics {
            active_streams: opened.saturating_sub(closed),
            delivered: self.delivered.load(Ordering::Relaxed),
            gaps: self.gaps.load(Ordering::Relaxed),
            routed: self.routed.load(Ordering::Relaxed),
            routing_failed: self.routing_failed.load(Ordering::Relaxed),
            routing_dropped: self.routing_dropped.load(Ordering::Relaxed),
            sweeps_failed: self.sweeps_failed.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn stream_opened(&self) {
        self.opened.fetch_add(1, Ordering::AcqRel);
        active(|gauge| gauge.increment(1.0));
    }

    pub(crate) fn stream_closed(&self) {
        self.closed.fetch_add(1, Ordering::AcqRel);
        active(|gauge| gauge.decrement(1.0));
    }

    pub(crate) fn gave(&self, items: &[Item]) {
        let number = |is_one: fn(&Item) -> bool| {
            let given = items.iter().filter(|item| is_one(item));
            given.count() as u64
        };
        let events = number(|item| matches!(item, Item::Event(_)));
        count(&self.delivered, &DELIVERED_KEY, events);
        let gaps = number(|item| matches!(item, Item::Gap(_)));
        count(&self.gaps, &GAPS_KEY, gaps);
    }

    pub(crate) fn routed(&self) {
        count(&self.routed, &SENT_KEY, 1);
    }

    pub(crate) fn routing_failed(&self) {
        count(&self.routing_failed, &FAILED_KEY, 1);
    }

    pub(crate) fn routing_dropped(&self) {
        count(&self.routing_dropped, &DROPPED_KEY, 1);
    }

    pub(crate) fn sweep_failed(&self) {
        count(&self.sweeps_failed, &SWEEP_KEY, 1);
    }
}

fn count(counter: &AtomicU64, key: &'static Key, number: u64) {
    if number > 0 {
        counter.fetch_add(number, Ordering::Relaxed);
        metrics::with_recorder(|recorder| recorder.register_counter(key, &METADATA))
            .increment(number);
    }
}

fn active(change: impl FnOnce(metrics::Gauge)) {
    change(metrics::with_recorder(|recorder| {
        recorder.register_gauge(&ACTIVE_KEY, &METADATA)
    }));
}
