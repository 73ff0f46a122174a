//! Traces: spans that are sent to a collector, as protobuf over HTTP (OTLP), with the feature `otlp`.
//!
//! The spans are those of the log: one for each request, below it one for accepting, and one for each delivery and
//! attempt. A request continues the trace of its caller (`traceparent`).

#[cfg(feature = "otlp")]
mod otlp;
#[cfg(not(feature = "otlp"))]
mod without;

#[cfg(feature = "otlp")]
pub(crate) use self::otlp::{MISSING, Traces, begin_request, end_request};
#[cfg(not(feature = "otlp"))]
pub(crate) use self::without::{MISSING, Traces, begin_request, end_request};

/// The span of what a stream does after the response to its request. It is for the log: as a part of no trace it would
/// begin one, for each frame that a client sends.
pub(crate) const STREAM: &str = "stream";
