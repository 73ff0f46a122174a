//! Traces: spans that are sent to a collector, as protobuf over HTTP (OTLP), with the feature `otlp`.
//!
//! The spans are those of the log: one for each request, below it one for accepting, and one for each delivery and
//! attempt. A request continues the trace of its caller (`traceparent`).

#[cfg(feature = "otlp")]
mod otlp;
#[cfg(not(feature = "otlp"))]
mod without;

#[cfg(feature = "otlp")]
pub(crate) use self::otlp::{Traces, begin_request, end_request};
#[cfg(not(feature = "otlp"))]
pub(crate) use self::without::{Traces, begin_request, end_request};

/// The span of what a stream does after the response to its request. It is for the log: as a part of no trace it would
/// begin one, for each frame that a client sends.
pub(crate) const STREAM: &str = "stream";

/// What the address of a collector is refused with by a binary without traces: its operator would wait for them in vain.
pub(crate) const REFUSAL: &str = "this binary cannot send traces, because it was built without the feature `otlp`; \
                                  build it with `--features otlp`";

/// Why this binary cannot send traces, if it cannot.
pub(crate) const MISSING: Option<&str> = if cfg!(feature = "otlp") {
    None
} else {
    Some(REFUSAL)
};
