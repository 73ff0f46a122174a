//! The record of one request, and what it means.

mod classifier;
mod error_kind;
mod phases;
mod retry_after;

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

pub use classifier::{Classifier, Verdict};
pub use error_kind::ErrorKind;
pub use phases::Phases;
pub use retry_after::{MAX_RETRY_AFTER, parse_retry_after};

/// Most bytes of a response's body that are kept for the report.
pub const MAX_RESPONSE_BYTES: usize = 16 * 1024;

/// Most bytes of a redirect's `location` that are kept for the report.
pub const MAX_LOCATION_BYTES: usize = 2048;

/// The record of one request.
///
/// As JSON: `number`, `started_at` (RFC 3339), `elapsed_ms`, `phases` (see [`Phases`]), `verdict`,
/// `ambiguous`, and, `null` when absent, `status`, `retry_after_s`, `location`, `body_head` (text,
/// other bytes replaced), `error` (the word of its [`ErrorKind`]) and `cause` (the underlying
/// errors, for a person to read).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Attempt {
    /// Which attempt of its delivery it was, counted from 1.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, reading the body included.
    pub elapsed: Duration,
    /// Where that time went, as far as it is known.
    pub phases: Phases,
    /// What the endpoint replied, or why there is no response.
    pub result: Result<Response, AttemptError>,
    /// What the endpoint's classifier decided.
    pub(crate) verdict: Verdict,
}

/// What an endpoint replied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Response {
    /// The status, which decides.
    pub status: StatusCode,
    /// How long the endpoint asks to get no requests: its `Retry-After`, at most a day.
    pub retry_after: Option<Duration>,
    /// Where a redirect, which is never followed, points; at most 2 KiB of it.
    pub location: Option<String>,
    /// The first 16 KiB of the body, or what arrived of it within a second.
    pub body_head: Bytes,
}

impl Response {
    /// A response that is nothing but a status, for the test of a [`Classifier`], or for one that has
    /// another client's responses to judge. What else there is can be set in its fields.
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            retry_after: None,
            location: None,
            body_head: Bytes::new(),
        }
    }
}

impl Attempt {
    /// What it means for the delivery, by the endpoint's [`Classifier`].
    pub fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// The status, if there was a response.
    pub fn status(&self) -> Option<StatusCode> {
        self.result.as_ref().ok().map(|response| response.status)
    }

    /// Why there was no response.
    pub fn error_kind(&self) -> Option<ErrorKind> {
        self.result.as_ref().err().map(AttemptError::kind)
    }

    /// How long the endpoint asks to get no requests.
    pub fn retry_after(&self) -> Option<Duration> {
        self.result.as_ref().ok()?.retry_after
    }

    /// Whether the endpoint may have received the message although it did not reply: the request
    /// had begun to leave when the attempt failed.
    pub fn is_ambiguous(&self) -> bool {
        self.result.as_ref().is_err_and(AttemptError::is_ambiguous)
    }
}

impl Serialize for Attempt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let response = self.result.as_ref().ok();
        let milliseconds = u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX);
        let body_head: Option<Cow<'_, str>> =
            response.map(|response| String::from_utf8_lossy(&response.body_head));
        let mut fields = serializer.serialize_struct("Attempt", 12)?;
        fields.serialize_field("number", &self.number)?;
        fields.serialize_field("started_at", &self.started_at)?;
        fields.serialize_field("elapsed_ms", &milliseconds)?;
        fields.serialize_field("phases", &self.phases)?;
        fields.serialize_field("verdict", &self.verdict())?;
        fields.serialize_field("status", &self.status().map(|status| status.as_u16()))?;
        fields.serialize_field("error", &self.error_kind())?;
        fields.serialize_field(
            "cause",
            &self.result.as_ref().err().map(AttemptError::cause),
        )?;
        fields.serialize_field("ambiguous", &self.is_ambiguous())?;
        fields.serialize_field(
            "retry_after_s",
            &self.retry_after().map(|wait| wait.as_secs()),
        )?;
        fields.serialize_field(
            "location",
            &response.and_then(|response| response.location.as_ref()),
        )?;
        fields.serialize_field("body_head", &body_head)?;
        fields.end()
    }
}

/// Why a request got no response.
#[derive(Debug, Clone)]
pub struct AttemptError {
    kind: ErrorKind,
    is_ambiguous: bool,
    /// Whether the request met a kept connection that ended before the first byte of a response.
    met_stale_connection: bool,
    /// Whether the receiver said that it did nothing with the request.
    was_refused: bool,
    source: Arc<dyn StdError + Send + Sync>,
}

impl AttemptError {
    /// An error of a [`Transport`](crate::transport::Transport).
    ///
    /// The sender finds out by itself whether the request had begun to leave.
    pub fn new(kind: ErrorKind, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self {
            kind,
            is_ambiguous: false,
            met_stale_connection: false,
            was_refused: false,
            source: Arc::from(source.into()),
        }
    }

    pub(crate) fn ambiguous(mut self, is_ambiguous: bool) -> Self {
        self.is_ambiguous = is_ambiguous;
        self
    }

    pub(crate) fn on_stale_connection(mut self, met_stale_connection: bool) -> Self {
        self.met_stale_connection = met_stale_connection;
        self
    }

    pub(crate) fn met_stale_connection(&self) -> bool {
        self.met_stale_connection
    }

    pub(crate) fn refused(mut self, was_refused: bool) -> Self {
        self.was_refused = was_refused;
        self
    }

    pub(crate) fn was_refused(&self) -> bool {
        self.was_refused
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether the endpoint may have received the message although it did not reply.
    pub fn is_ambiguous(&self) -> bool {
        self.is_ambiguous
    }

    /// The underlying errors, for a person to read: from the nearest to the last, such as
    /// "certificate expired". The URL is not among them.
    pub fn cause(&self) -> String {
        let mut text = self.source.to_string();
        let mut next = self.source.source();
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            // Some errors repeat the text of their source.
            if !text.ends_with(&cause_text) {
                text.push_str(": ");
                text.push_str(&cause_text);
            }
            next = cause.source();
        }
        text
    }
}

impl fmt::Display for AttemptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)
    }
}

impl StdError for AttemptError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn the_cause_has_the_text_of_each_layer_once() {
        let layers = [
            "no connection",
            "TLS: bad record",
            "bad record",
            "end of file",
        ];
        let chain = layers
            .into_iter()
            .rfold(None, |source, text| Some(Box::new(Layer { text, source })));
        let error = AttemptError::new(ErrorKind::Tls, chain.unwrap());
        assert_eq!(error.to_string(), ErrorKind::Tls.to_string());
        assert_eq!(error.cause(), "no connection: TLS: bad record: end of file");
    }
}
