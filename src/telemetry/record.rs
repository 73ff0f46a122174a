//! What the recorder of metrics gets, and when.

use std::time::Duration;

use http::StatusCode;
use metrics::{
    Counter, Gauge, Histogram, Key, Label, Level, Metadata, SharedString, Unit, counter,
    describe_counter, describe_gauge, describe_histogram, histogram, with_recorder,
};

use super::{
    ATTEMPT_DURATION, CIRCUIT_CHANGES, CIRCUIT_STATE, DELIVERY_ATTEMPTS, DELIVERY_DROPPED,
    DELIVERY_DURATION, DELIVERY_IN_FLIGHT, DELIVERY_QUEUED, ENDPOINT_GONE, ENDPOINT_PAUSED,
    ERROR_TYPE, HTTP_RESPONSE_STATUS_CODE,
};
use crate::circuit_breaker::CircuitState;
use crate::{Attempt, DeliveryErrorCause};

/// Describes the metrics and their units to the recorder, and has those counters begin at zero whose labels are
/// known, so that a rate has their first count. Call it once, after installing one.
pub fn describe_metrics() {
    describe_histogram!(
        ATTEMPT_DURATION,
        Unit::Seconds,
        "How long one request took, reading the response included."
    );
    describe_histogram!(
        DELIVERY_DURATION,
        Unit::Seconds,
        "How long a delivery took from its acceptance to its outcome; each try that a database schedules counts as one."
    );
    describe_histogram!(
        DELIVERY_ATTEMPTS,
        Unit::Count,
        "How many requests a delivery took; each try that a database schedules counts as one delivery."
    );
    describe_counter!(
        DELIVERY_DROPPED,
        Unit::Count,
        "Messages that were not accepted, or were given up before their outcome was known."
    );
    describe_gauge!(
        DELIVERY_QUEUED,
        Unit::Count,
        "Messages in memory that are queued or wait for their next attempt."
    );
    describe_gauge!(DELIVERY_IN_FLIGHT, Unit::Count, "Attempts under way.");
    describe_counter!(
        CIRCUIT_CHANGES,
        Unit::Count,
        "Circuits that opened, began to probe, or closed."
    );
    describe_counter!(
        ENDPOINT_GONE,
        Unit::Count,
        "Endpoints that said that they do not exist any more."
    );
    describe_counter!(
        ENDPOINT_PAUSED,
        Unit::Count,
        "Endpoints that asked for no requests for more than a minute."
    );
    for state in [
        CircuitState::Open,
        CircuitState::HalfOpen,
        CircuitState::Closed,
    ] {
        circuit_changes(state).increment(0);
    }
    counter!(ENDPOINT_GONE).increment(0);
    counter!(ENDPOINT_PAUSED).increment(0);
}

static METADATA: Metadata<'static> =
    Metadata::new(env!("CARGO_PKG_NAME"), Level::INFO, Some(module_path!()));

// The metrics of every delivery have keys that are made once. The macros make a key for each call unless
// its name is spelled out on the spot.
static OK: [Label; 1] = [Label::from_static_parts(HTTP_RESPONSE_STATUS_CODE, "200")];
static ATTEMPT_OK: Key = Key::from_static_parts(ATTEMPT_DURATION, &OK);
static DELIVERED: Key = Key::from_static_name(DELIVERY_DURATION);
static ATTEMPTS: Key = Key::from_static_name(DELIVERY_ATTEMPTS);
static QUEUED: Key = Key::from_static_name(DELIVERY_QUEUED);
static IN_FLIGHT: Key = Key::from_static_name(DELIVERY_IN_FLIGHT);

fn histogram_of(key: &Key) -> Histogram {
    with_recorder(|recorder| recorder.register_histogram(key, &METADATA))
}

fn gauge_of(key: &Key) -> Gauge {
    with_recorder(|recorder| recorder.register_gauge(key, &METADATA))
}

/// A request is over.
pub(crate) fn attempted(attempt: &Attempt) {
    let duration = match &attempt.result {
        Ok(response) if response.status == StatusCode::OK => histogram_of(&ATTEMPT_OK),
        Ok(response) if response.status.is_success() => {
            let status = status_word(response.status);
            histogram!(ATTEMPT_DURATION, HTTP_RESPONSE_STATUS_CODE => status)
        }
        Ok(response) => {
            let status = status_word(response.status);
            histogram!(
                ATTEMPT_DURATION,
                HTTP_RESPONSE_STATUS_CODE => status.clone(),
                ERROR_TYPE => status
            )
        }
        Err(error) => histogram!(ATTEMPT_DURATION, ERROR_TYPE => error.kind().as_str()),
    };
    duration.record(attempt.elapsed);
}

/// A delivery succeeded.
pub(crate) fn delivered(age: Duration, attempts: u32) {
    histogram_of(&DELIVERED).record(age);
    count_attempts(attempts);
}

/// A delivery failed, or was given up.
pub(crate) fn failed(cause: &DeliveryErrorCause, age: Duration, attempts: u32) {
    let error_type = match cause {
        DeliveryErrorCause::Status(status) => status_word(*status),
        DeliveryErrorCause::Transport(error) => error.kind().as_str().into(),
        DeliveryErrorCause::CircuitOpen => "circuit_open".into(),
        DeliveryErrorCause::RetryAfter => "retry_after".into(),
        DeliveryErrorCause::Abandoned => return dropped("abandoned"),
        DeliveryErrorCause::NotStarted => return dropped("not_started"),
        DeliveryErrorCause::QueueFull => return dropped("queue_full"),
        DeliveryErrorCause::Removed => return dropped("removed"),
        DeliveryErrorCause::Gone => return dropped("gone"),
    };
    histogram!(DELIVERY_DURATION, ERROR_TYPE => error_type).record(age);
    count_attempts(attempts);
}

fn count_attempts(attempts: u32) {
    histogram_of(&ATTEMPTS).record(attempts);
}

/// A message was not accepted, or given up.
pub(crate) fn dropped(error_type: &'static str) {
    counter!(DELIVERY_DROPPED, ERROR_TYPE => error_type).increment(1);
}

/// So many messages wait where so many waited before.
pub(crate) fn queued(before: usize, now: usize) {
    // Differences, because several queues add up.
    let count = |messages: usize| u32::try_from(messages).unwrap_or(u32::MAX);
    let gauge = gauge_of(&QUEUED);
    if now > before {
        gauge.increment(count(now - before));
    } else {
        gauge.decrement(count(before - now));
    }
}

/// An attempt began, or ended.
pub(crate) fn in_flight(began: bool) {
    let gauge = gauge_of(&IN_FLIGHT);
    if began {
        gauge.increment(1);
    } else {
        gauge.decrement(1);
    }
}

pub(crate) fn circuit_changed(state: CircuitState) {
    circuit_changes(state).increment(1);
}

fn circuit_changes(state: CircuitState) -> Counter {
    let state = match state {
        CircuitState::Closed => "closed",
        CircuitState::Open => "open",
        CircuitState::HalfOpen => "half_open",
    };
    counter!(CIRCUIT_CHANGES, CIRCUIT_STATE => state)
}

pub(crate) fn endpoint_gone() {
    counter!(ENDPOINT_GONE).increment(1);
}

pub(crate) fn endpoint_paused() {
    counter!(ENDPOINT_PAUSED).increment(1);
}

/// A status as a label: one of few, whatever a receiver replies.
fn status_word(status: StatusCode) -> SharedString {
    if status.canonical_reason().is_some() {
        return status.as_str().to_owned().into();
    }
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        5 => "5xx",
        _ => "other",
    }
    .into()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn there_are_few_words_for_all_statuses() {
        let all = (100..1000).map(|code| StatusCode::from_u16(code).unwrap());
        let words: HashSet<_> = all.map(|status| status_word(status).into_owned()).collect();
        assert!(words.len() < 80, "{}", words.len());
        for (code, word) in [(200, "200"), (299, "2xx"), (599, "5xx"), (999, "other")] {
            let status = StatusCode::from_u16(code).unwrap();
            assert_eq!(status_word(status).as_ref(), word);
        }
    }
}
