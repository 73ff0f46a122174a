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

use super::Phases;
use crate::{ErrorKind, Verdict};

/// The record of one request.
///
/// As JSON: `number`, `started_at` (RFC 3339), `elapsed_ms`, `phases` (see [`Phases`]), `verdict`,
/// `ambiguous`, and, `null` when absent, `status`, `retry_after_s`, `location`, `body_head` (text,
/// other bytes replaced), `error` (the word of its [`ErrorKind`]) and `cause` (what lies beneath
/// it, in words for a person).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Attempt {
    /// Which attempt of its delivery it was, counted from 1.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// How long it took, reading the body included.
    pub elapsed: Duration,
    /// Where that time went, as far as it can be told.
    pub phases: Phases,
    /// What came back.
    pub result: Result<Answer, AttemptError>,
}

/// What an endpoint answered.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The status, which decides.
    pub status: StatusCode,
    /// How long the endpoint asks not to be called: its `Retry-After`, at most a day.
    pub retry_after: Option<Duration>,
    /// Where a redirect, which is never followed, points; at most 2 KiB of it.
    pub location: Option<String>,
    /// The first 16 KiB of the body, or what of it came within a second.
    pub body_head: Bytes,
}

impl Attempt {
    /// What it means for the delivery.
    pub fn verdict(&self) -> Verdict {
        match &self.result {
            Ok(answer) => Verdict::of_status(answer.status),
            Err(error) if error.kind.is_retryable() => Verdict::Retryable,
            Err(_) => Verdict::Permanent,
        }
    }

    /// The status, when there was an answer.
    pub fn status(&self) -> Option<StatusCode> {
        self.result.as_ref().ok().map(|answer| answer.status)
    }

    /// Why there was no answer.
    pub fn error_kind(&self) -> Option<ErrorKind> {
        self.result.as_ref().err().map(AttemptError::kind)
    }

    /// How long the endpoint asks not to be called.
    pub fn retry_after(&self) -> Option<Duration> {
        self.result.as_ref().ok()?.retry_after
    }

    /// Whether the endpoint may have taken the message although no answer says so: the request was
    /// on its way when the attempt failed.
    pub fn is_ambiguous(&self) -> bool {
        self.result.as_ref().is_err_and(|error| error.ambiguous)
    }
}

impl Serialize for Attempt {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let answer = self.result.as_ref().ok();
        let milliseconds = u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX);
        let body_head: Option<Cow<'_, str>> =
            answer.map(|answer| String::from_utf8_lossy(&answer.body_head));
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
            &answer.and_then(|answer| answer.location.as_ref()),
        )?;
        fields.serialize_field("body_head", &body_head)?;
        fields.end()
    }
}

/// Why a request brought no answer.
#[derive(Debug, Clone)]
pub struct AttemptError {
    kind: ErrorKind,
    ambiguous: bool,
    source: Arc<dyn StdError + Send + Sync>,
}

impl AttemptError {
    pub(crate) fn new(kind: ErrorKind, source: impl StdError + Send + Sync + 'static) -> Self {
        Self {
            kind,
            ambiguous: false,
            source: Arc::new(source),
        }
    }

    pub(crate) fn ambiguous(mut self) -> Self {
        self.ambiguous = true;
        self
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What lies beneath it, for a person to read: the causes from the nearest to the last, such as
    /// "certificate expired". It does not tell the URL.
    pub fn cause(&self) -> String {
        let mut text = self.source.to_string();
        let mut next = self.source.source();
        while let Some(cause) = next {
            let cause_text = cause.to_string();
            // Some layers repeat what lies beneath them.
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
