//! Names of spans, fields and metrics, after the [OpenTelemetry conventions for messaging][otel].
//! Those conventions are still in development, so the names stand here and nowhere else.
//!
//! Metrics go to the recorder of the [`metrics`] crate that the program has installed, if any:
//!
//! | name | kind | labels |
//! |---|---|---|
//! | [`SENT`] | counter of published messages | stream, [`ERROR_TYPE`] if it failed |
//! | [`PROCESS_DURATION`] | histogram of handler calls, in seconds | stream, group, [`ERROR_TYPE`] if it failed |
//! | [`SETTLED`] | counter of messages whose claims ended | stream, group, [`OUTCOME`] |
//!
//! Each handler call runs in a span `process` with the stream, the group, the id of the first message,
//! the number of messages, and the attempt.
//!
//! [otel]: https://opentelemetry.io/docs/specs/semconv/messaging/

use std::time::Duration;

use tracing::Span;

use crate::consumer::Subscription;
use crate::engine::{Delivery, GroupKey};
use crate::{Error, StreamName};

/// Counter of messages that were published, or could not be.
pub const SENT: &str = "messaging.client.sent.messages";
/// Histogram of the time that handler calls take, in seconds.
pub const PROCESS_DURATION: &str = "messaging.process.duration";
/// Counter of messages whose claims ended, as the store has recorded it.
pub const SETTLED: &str = "tidings.stream.settled";
/// Label: the full name of the stream.
pub const STREAM: &str = "messaging.destination.name";
/// Label: the consumer group.
pub const GROUP: &str = "messaging.consumer.group.name";
/// Label: why something failed.
pub const ERROR_TYPE: &str = "error.type";
/// Label: how the claim of a message ended.
pub const OUTCOME: &str = "tidings.stream.outcome";

pub(crate) const ACKNOWLEDGED: &str = "acknowledged";
pub(crate) const RETRIED: &str = "retried";
pub(crate) const RELEASED: &str = "released";
pub(crate) const DEAD_LETTERED: &str = "dead_lettered";
pub(crate) const STALE: &str = "stale";

/// Counts messages of a publish.
pub(crate) fn sent(stream: &StreamName, messages: usize, error: Option<&Error>) {
    let mut labels = vec![metrics::Label::new(STREAM, stream.to_string())];
    if let Some(error) = error {
        labels.push(metrics::Label::new(ERROR_TYPE, error.kind()));
    }
    metrics::counter!(SENT, labels).increment(messages as u64);
}

/// Records a handler call.
pub(crate) fn processed(group: &GroupKey, time: Duration, error_type: Option<&'static str>) {
    let mut labels = labels(group);
    labels.extend(error_type.map(|error| metrics::Label::new(ERROR_TYPE, error)));
    metrics::histogram!(PROCESS_DURATION, labels).record(time.as_secs_f64());
}

/// Counts messages whose claims ended in one way.
pub(crate) fn settled(group: &GroupKey, outcome: &'static str, messages: u64) {
    let mut labels = labels(group);
    labels.push(metrics::Label::new(OUTCOME, outcome));
    metrics::counter!(SETTLED, labels).increment(messages);
}

fn labels(group: &GroupKey) -> Vec<metrics::Label> {
    vec![
        metrics::Label::new(STREAM, group.stream.to_string()),
        metrics::Label::new(GROUP, group.group.to_string()),
    ]
}

/// The span of one handler call.
pub(crate) fn process_span(subscription: &Subscription, deliveries: &[Delivery]) -> Span {
    let GroupKey { stream, group } = subscription.group();
    let first = deliveries.first().map(|delivery| &delivery.message);
    tracing::info_span!(
        "process",
        messaging.operation.name = "process",
        messaging.destination.name = %stream,
        messaging.consumer.group.name = %group,
        messaging.client.id = &*subscription.consumer.consumer,
        messaging.message.id = first.map(|message| message.id.as_u64()),
        messaging.batch.message_count = deliveries.len(),
        tidings.stream.attempt = first.map(|message| message.attempt),
    )
}
