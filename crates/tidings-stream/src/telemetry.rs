//! Names of spans, fields and metrics, after the [OpenTelemetry conventions for messaging][otel].
//! Those conventions are still in development, so the names stand here and nowhere else.
//!
//! Metrics go to the recorder of the [`metrics`] crate that the program has installed, if any:
//!
//! | name | kind | labels |
//! |---|---|---|
//! | [`SENT`] | counter of published messages | stream, [`ERROR_TYPE`] if it failed |
//! | [`PROCESS_DURATION`] | histogram of handler calls, in seconds | stream, group, [`ERROR_TYPE`] if it failed |
//! | [`SETTLED`] | counter of messages whose claims ended, from zero on since the group has a consumer in this process | stream, group, [`OUTCOME`] |
//!
//! Each handler call runs in a span `process` with the stream, the group, the id of the first message,
//! the number of messages, the attempt, and the [`TRACEPARENT`] of the first message if it has one: what
//! exports spans can continue that trace.
//!
//! [otel]: https://opentelemetry.io/docs/specs/semconv/messaging/

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use metrics::{Key, Label, Level, Metadata, Unit, describe_counter, describe_histogram};
use tracing::Span;

use crate::consumer::Subscription;
use crate::engine::{ClaimedMessage, GroupKey};
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

/// Header of a message, and field of the span of its handler calls: the trace context of the span that has
/// published it, as [W3C](https://www.w3.org/TR/trace-context/#traceparent-header) writes it.
pub const TRACEPARENT: &str = "traceparent";

pub(crate) const ACKNOWLEDGED: &str = "acknowledged";
pub(crate) const RETRIED: &str = "retried";
pub(crate) const RELEASED: &str = "released";
pub(crate) const DEAD_LETTERED: &str = "dead_lettered";
pub(crate) const STALE: &str = "stale";

/// Describes the metrics to the recorder. Call it once, after installing one.
pub fn describe_metrics() {
    describe_counter!(
        SENT,
        Unit::Count,
        "Messages that were published to streams, or could not be."
    );
    describe_histogram!(
        PROCESS_DURATION,
        Unit::Seconds,
        "How long a call of a handler of a stream took."
    );
    describe_counter!(
        SETTLED,
        Unit::Count,
        "Messages of streams whose claims ended."
    );
}

/// Counts messages of a publish.
pub(crate) fn sent(stream: &StreamName, messages: usize, error: Option<&Error>) {
    let mut labels = vec![Label::new(STREAM, stream.label())];
    if let Some(error) = error {
        labels.push(Label::new(ERROR_TYPE, error.kind()));
    }
    reported(|| metrics::counter!(SENT, labels).increment(messages as u64));
}

/// Calls the recorder of metrics, or a tracing layer. If it panics, that costs a figure, and not the message
/// that it is about: no task ends with it.
fn reported<T>(call: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(call)).ok()
}

/// Counts what becomes of the messages of one group. Handlers are called often, and the macros of the
/// facade would make a key for each call.
#[derive(Debug)]
pub(crate) struct GroupTelemetry {
    processed: Key,
    acknowledged: Key,
}

impl GroupTelemetry {
    pub(crate) fn new(group: &GroupKey) -> Self {
        let labels = vec![
            Label::new(STREAM, group.stream.label()),
            Label::new(GROUP, group.group.to_string()),
        ];
        let acknowledged = Label::new(OUTCOME, ACKNOWLEDGED);
        let telemetry = Self {
            acknowledged: Key::from_parts(SETTLED, labels.clone())
                .with_extra_labels(vec![acknowledged]),
            processed: Key::from_parts(PROCESS_DURATION, labels),
        };
        // A rate has the first count if there was a zero before it.
        for outcome in [ACKNOWLEDGED, RETRIED, RELEASED, DEAD_LETTERED, STALE] {
            telemetry.settled(outcome, 0);
        }
        telemetry
    }

    /// Records a handler call.
    pub(crate) fn processed(&self, time: Duration, error_type: Option<&'static str>) {
        let failed = error_type.map(|error| {
            let error = Label::new(ERROR_TYPE, error);
            self.processed.with_extra_labels(vec![error])
        });
        let key = failed.as_ref().unwrap_or(&self.processed);
        reported(|| {
            let histogram =
                metrics::with_recorder(|recorder| recorder.register_histogram(key, &METADATA));
            histogram.record(time.as_secs_f64());
        });
    }

    /// Counts messages whose claims ended in one way.
    pub(crate) fn settled(&self, outcome: &'static str, messages: u64) {
        let other = (outcome != ACKNOWLEDGED).then(|| {
            let labels = self.processed.labels().cloned();
            let labels = labels.chain([Label::new(OUTCOME, outcome)]);
            Key::from_parts(SETTLED, labels.collect::<Vec<_>>())
        });
        let key = other.as_ref().unwrap_or(&self.acknowledged);
        reported(|| {
            let counter =
                metrics::with_recorder(|recorder| recorder.register_counter(key, &METADATA));
            counter.increment(messages);
        });
    }
}

static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// The span of one handler call.
pub(crate) fn process_span(subscription: &Subscription, messages: &[ClaimedMessage]) -> Span {
    let GroupKey { stream, group } = subscription.group();
    let first = messages.first().map(|it| &it.message);
    let make = || {
        tracing::info_span!(
        "process",
        messaging.operation.name = "process",
        messaging.destination.name = %stream,
        messaging.consumer.group.name = %group,
        messaging.client.id = &*subscription.consumer.consumer,
        messaging.message.id = first.map(|message| message.id.as_u64()),
        messaging.batch.message_count = messages.len(),
        tidings.stream.attempt = first.map(|message| message.attempt),
        traceparent = first.and_then(|message| message.headers.get(TRACEPARENT)).map(String::as_str),
        )
    };
    reported(make).unwrap_or_else(Span::none)
}
