//! What takes the place of traces in a binary without the feature `otlp`, which refuses the address of a collector: an
//! operator would wait for traces in vain.

use std::future::Ready;

use axum::http::{HeaderMap, StatusCode};
use tracing::Span;
use tracing_subscriber::layer::Identity;
use url::Url;

/// What the address of a collector is refused with.
const REFUSAL: &str = "this binary cannot send traces, because it was built without the feature `otlp`; \
                       build it with `--features otlp`";

/// Why this binary cannot send traces.
pub(crate) const MISSING: Option<&str> = Some(REFUSAL);

/// What sends spans: there is none.
#[derive(Debug)]
pub(crate) enum Traces {}

impl Traces {
    pub(crate) fn start(_endpoint: &Url) -> Result<Self, &'static str> {
        Err(REFUSAL)
    }

    pub(crate) fn layer(&self) -> Identity {
        match *self {}
    }

    pub(crate) fn stop(self) -> Ready<()> {
        match self {}
    }
}

/// No request continues a trace.
pub(crate) fn begin_request(_span: &Span, _headers: &HeaderMap) {}

/// No span has the status of its request.
pub(crate) fn end_request(_span: &Span, _status: StatusCode) {}
