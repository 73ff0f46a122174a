//! What is counted, and under which names.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::Item;

/// Streams that are open now.
pub const SUBSCRIPTION_ACTIVE: &str = "tidings.subscription.active";
/// Events given to streams: one event on three screens counts three times.
pub const NOTIFICATION_DELIVERED: &str = "tidings.notification.delivered";
/// Gaps given to streams.
pub const SUBSCRIPTION_GAPS: &str = "tidings.subscription.gaps";
/// Events handed to another instance.
pub const ROUTING_SENT: &str = "tidings.routing.sent";
/// Events that could not be handed to another instance, which finds them in its next sweep.
pub const ROUTING_FAILED: &str = "tidings.routing.failed";
/// Events that found the routing queue full; the sweep carries them.
pub const ROUTING_DROPPED: &str = "tidings.routing.dropped";
/// Sweeps that failed and were left to the next.
pub const SWEEP_FAILED: &str = "tidings.sweep.failed";

/// What a [`Notifier`](crate::Notifier) has done since it was built. The constants of
/// [`telemetry`](self) name the figures.
///
/// There is no count of dropped notifications: a stream drops none.
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
    }

    pub(crate) fn stream_closed(&self) {
        self.closed.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn gave(&self, items: &[Item]) {
        let count = |counter: &AtomicU64, is_one: fn(&Item) -> bool| {
            let given = items.iter().filter(|item| is_one(item)).count() as u64;
            if given > 0 {
                counter.fetch_add(given, Ordering::Relaxed);
            }
        };
        count(&self.delivered, |item| matches!(item, Item::Event(_)));
        count(&self.gaps, |item| matches!(item, Item::Gap(_)));
    }

    pub(crate) fn routed(&self) {
        self.routed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn routing_failed(&self) {
        self.routing_failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn routing_dropped(&self) {
        self.routing_dropped.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn sweep_failed(&self) {
        self.sweeps_failed.fetch_add(1, Ordering::Relaxed);
    }
}
