//! The names of the metrics of this crate. Requests, circuits and queues have those of
//! [`tidings::telemetry`].
//!
//! They go through the facade [`metrics`](https://docs.rs/metrics), to whichever recorder the
//! program installs.
//!
//! | metric | kind | of |
//! |---|---|---|
//! | [`DELIVERIES_ADDED`] | counter | deliveries that the fan-out made |
//! | [`EVENTS_DEFERRED`] | counter | events whose deliveries are made beside those of later events |
//! | [`DELIVERIES_ENDED`] | counter, label [`STATE`] | deliveries that had their outcome |
//! | [`LANES_HELD`] | gauge | lanes that this process serves |
//! | [`OUTCOMES_UNWRITTEN`] | gauge | outcomes that wait to be written to the store |
//! | [`ENDPOINTS_DISABLED`] | counter | endpoints that were disabled because of what they replied |

use crate::DeliveryState;

/// Deliveries that the fan-out made.
pub const DELIVERIES_ADDED: &str = "tidings.webhooks.deliveries.added";
/// Events whose deliveries are made beside those of later events, because they are many.
pub const EVENTS_DEFERRED: &str = "tidings.webhooks.events.deferred";
/// Deliveries that had their outcome.
pub const DELIVERIES_ENDED: &str = "tidings.webhooks.deliveries.ended";
/// Lanes that this process serves.
pub const LANES_HELD: &str = "tidings.webhooks.lanes";
/// Outcomes that wait to be written to the store.
pub const OUTCOMES_UNWRITTEN: &str = "tidings.webhooks.outcomes.unwritten";
/// Endpoints that were disabled because of what they replied.
pub const ENDPOINTS_DISABLED: &str = "tidings.webhooks.endpoints.disabled";
/// How a delivery ended: `delivered`, `failed` or `cancelled`.
pub const STATE: &str = "state";

/// Describes every metric to the recorder that is installed, and has the counters begin at zero, so that a rate over
/// them has their first count.
pub fn describe_metrics() {
    metrics::describe_counter!(
        DELIVERIES_ADDED,
        metrics::Unit::Count,
        "Deliveries that were made of accepted events."
    );
    metrics::describe_counter!(
        EVENTS_DEFERRED,
        metrics::Unit::Count,
        "Events whose deliveries are made beside those of later events, because they are many."
    );
    metrics::describe_counter!(
        DELIVERIES_ENDED,
        metrics::Unit::Count,
        "Deliveries that had their final outcome."
    );
    metrics::describe_gauge!(
        LANES_HELD,
        metrics::Unit::Count,
        "Endpoints that this process serves: those with work, and for some seconds after it."
    );
    metrics::describe_gauge!(
        OUTCOMES_UNWRITTEN,
        metrics::Unit::Count,
        "Outcomes of attempts that wait to be written to the store."
    );
    metrics::describe_counter!(
        ENDPOINTS_DISABLED,
        metrics::Unit::Count,
        "Endpoints that were disabled because they are gone or failed for too long."
    );
    for counter in [DELIVERIES_ADDED, EVENTS_DEFERRED, ENDPOINTS_DISABLED] {
        metrics::counter!(counter).increment(0);
    }
    for state in DeliveryState::ALL {
        if state != DeliveryState::Pending {
            metrics::counter!(DELIVERIES_ENDED, STATE => state.as_str()).increment(0);
        }
    }
}

pub(crate) fn deliveries_added(count: usize) {
    metrics::counter!(DELIVERIES_ADDED).increment(count as u64);
}

pub(crate) fn events_deferred(count: usize) {
    metrics::counter!(EVENTS_DEFERRED).increment(count as u64);
}

pub(crate) fn deliveries_ended(state: DeliveryState, count: usize) {
    if count > 0 {
        metrics::counter!(DELIVERIES_ENDED, STATE => state.as_str()).increment(count as u64);
    }
}

#[allow(
    clippy::cast_precision_loss,
    reason = "there are far fewer lanes than a float counts"
)]
pub(crate) fn lanes_held(before: usize, now: usize) {
    // The difference, because another thread may be at the next one.
    if before != now {
        metrics::gauge!(LANES_HELD).increment(now as f64 - before as f64);
    }
}

pub(crate) fn outcomes_unwritten(change: f64) {
    metrics::gauge!(OUTCOMES_UNWRITTEN).increment(change);
}

pub(crate) fn endpoint_disabled() {
    metrics::counter!(ENDPOINTS_DISABLED).increment(1);
}
