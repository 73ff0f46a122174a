//! The names of what spans, events and metrics carry.
//!
//! Those without the prefix `tidings.` are of the OpenTelemetry semantic conventions
//! (<https://opentelemetry.io/docs/specs/semconv/http/http-spans/>).
//!
//! # Spans
//!
//! `delivery` has a child `attempt` for each request, both at the level DEBUG. Ids, hosts and ports
//! are on spans alone; paths and queries of URLs, which may hold keys, are nowhere. Spans are made for
//! subscribers of `tracing`, not for loggers of `log`.
//!
//! # Metrics
//!
//! They go through the facade [`metrics`], to the recorder that the program installs; without one
//! they cost next to nothing. Install it before the first message: gauges are recorded as changes.
//! Neither a span nor an event nor a metric is recorded under a lock, so that a layer or a recorder
//! may use the client.
//!
//! | metric | kind | of | labels |
//! |---|---|---|---|
//! | [`ATTEMPT_DURATION`] | histogram, seconds | every request, of clients, dispatchers and senders | [`HTTP_RESPONSE_STATUS_CODE`] if there was a response, [`ERROR_TYPE`] if it was not 2xx |
//! | [`DELIVERY_DURATION`] | histogram, seconds | deliveries from acceptance to the outcome | [`ERROR_TYPE`] if it failed |
//! | [`DELIVERY_ATTEMPTS`] | histogram | how many requests these deliveries took | |
//! | [`DELIVERY_DROPPED`] | counter | messages that were not accepted, or given up before an outcome | [`ERROR_TYPE`] |
//! | [`DELIVERY_QUEUED`] | gauge | messages in memory that are queued or wait for their next attempt | |
//! | [`DELIVERY_IN_FLIGHT`] | gauge | attempts under way | |
//! | [`CIRCUIT_CHANGES`] | counter | changes of circuits | [`CIRCUIT_STATE`]: `open`, `half_open`, `closed` |
//! | [`ENDPOINT_GONE`] | counter | endpoints that replied `410 Gone` and were stopped | |
//! | [`ENDPOINT_PAUSED`] | counter | endpoints that asked with `Retry-After` for no requests for more than a minute | |
//!
//! Gauges and counters are sums over all clients and dispatchers of the program. Every label has a
//! small set of values. A status is its number if it is a registered one, else its class, such as
//! `5xx`. [`ERROR_TYPE`] is such a status, the [word](crate::ErrorKind::as_str) of an error,
//! `circuit_open`, `retry_after`, or for what was dropped `not_started`, `stopped`, `queue_full`,
//! `unknown_endpoint`, `gone`, `removed` or `abandoned`.
//!
//! [`metrics`]: https://docs.rs/metrics

mod record;
mod span;

pub use record::describe_metrics;
pub(crate) use record::{
    attempted, circuit_changed, delivered, dropped, endpoint_gone, endpoint_paused, failed,
    in_flight, queued,
};
pub(crate) use span::Span;

/// The method of the request, always `POST`.
pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
/// How many attempts came before this one; absent from the first.
pub const HTTP_REQUEST_RESEND_COUNT: &str = "http.request.resend_count";
/// The status that the endpoint replied with.
pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
/// The host of the endpoint.
pub const SERVER_ADDRESS: &str = "server.address";
/// The port of the endpoint.
pub const SERVER_PORT: &str = "server.port";
/// What kind of error it was, one of a small set of words, or a status.
pub const ERROR_TYPE: &str = "error.type";
/// The id of the message, the same for all attempts of a delivery.
pub const MESSAGE_ID: &str = "tidings.message.id";
/// What kind of thing the message says has happened.
pub const MESSAGE_TYPE: &str = "tidings.message.type";
/// The number of the attempt, counted from 1.
pub const ATTEMPT: &str = "tidings.attempt";
/// The name that a dispatcher knows the endpoint by.
pub const ENDPOINT_ID: &str = "tidings.endpoint.id";

/// The state that a circuit changed to.
pub const CIRCUIT_STATE: &str = "tidings.circuit.state";

/// How long one request took, reading the response included.
pub const ATTEMPT_DURATION: &str = "tidings.attempt.duration";
/// How long a delivery took from its acceptance to its outcome.
pub const DELIVERY_DURATION: &str = "tidings.delivery.duration";
/// How many requests a delivery took.
pub const DELIVERY_ATTEMPTS: &str = "tidings.delivery.attempts";
/// Messages that were handed back, or given up before their outcome was known.
pub const DELIVERY_DROPPED: &str = "tidings.delivery.dropped";
/// Messages that are queued or wait for their next attempt.
pub const DELIVERY_QUEUED: &str = "tidings.delivery.queued";
/// Attempts under way.
pub const DELIVERY_IN_FLIGHT: &str = "tidings.delivery.in_flight";
/// Circuits that opened, began to probe, or closed.
pub const CIRCUIT_CHANGES: &str = "tidings.circuit.changes";
/// Endpoints that said that they do not exist any more.
pub const ENDPOINT_GONE: &str = "tidings.endpoint.gone";
/// Endpoints that asked for no requests for more than a minute.
pub const ENDPOINT_PAUSED: &str = "tidings.endpoint.paused";
