//! The end of a message: it is refused, delivered, or fails for good.

use std::error::Error as StdError;
use std::fmt;

use http::StatusCode;
use tokio::time::Instant;

use crate::panics::catch;
use crate::{Attempt, AttemptError, Message, Verdict, telemetry};

/// A message that a [`Client`](crate::Client) or a [`Dispatcher`](crate::Dispatcher) did not accept,
/// handed back.
#[derive(Debug)]
pub struct NotifyError {
    message: Message,
    reason: Refusal,
}

/// Why a message was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// [`start`](crate::Client::start) was not called yet.
    #[error("sending was not started")]
    NotStarted,
    /// As many messages as the queue may hold are queued or wait for their next attempt.
    #[error("the queue is full")]
    QueueFull,
    /// The client or dispatcher is stopping or has stopped, or its runtime has ended.
    #[error("sending has stopped")]
    Stopped,
    /// The dispatcher does not have the endpoint, or no longer.
    #[error("the endpoint is unknown")]
    UnknownEndpoint,
    /// The dispatcher's endpoint replied `410 Gone`, and gets nothing until it is
    /// [inserted](crate::Dispatcher::insert) again.
    #[error("the endpoint is gone")]
    Gone,
}

impl NotifyError {
    /// Hands a message back, and counts that.
    pub(crate) fn refused(message: Message, reason: impl Into<Refusal>) -> Self {
        let reason = reason.into();
        catch(|| telemetry::dropped(reason.as_str()));
        Self { message, reason }
    }

    /// Why the message was not accepted.
    pub fn reason(&self) -> Refusal {
        self.reason
    }

    /// Whether the queue is full.
    pub fn is_full(&self) -> bool {
        self.reason == Refusal::QueueFull
    }

    /// Whether the same call may succeed later: the queue is full, or `start` was not called yet.
    pub fn is_retryable(&self) -> bool {
        matches!(self.reason, Refusal::QueueFull | Refusal::NotStarted)
    }

    /// The message that was not accepted.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// Takes the message back.
    pub fn into_message(self) -> Message {
        self.message
    }
}

impl fmt::Display for NotifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "message {} was not accepted: {}",
            self.message.id(),
            self.reason
        )
    }
}

impl StdError for NotifyError {}

impl Refusal {
    /// One word for metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::NotStarted => "not_started",
            Self::QueueFull => "queue_full",
            Self::Stopped => "stopped",
            Self::UnknownEndpoint => "unknown_endpoint",
            Self::Gone => "gone",
        }
    }
}

/// Why a queue accepts no messages: what is left of [`Refusal`] for a call that waits until the queue
/// has a free place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closed {
    NotStarted,
    Stopped,
    UnknownEndpoint,
    Gone,
}

impl From<Closed> for Refusal {
    fn from(closed: Closed) -> Self {
        match closed {
            Closed::NotStarted => Self::NotStarted,
            Closed::Stopped => Self::Stopped,
            Closed::UnknownEndpoint => Self::UnknownEndpoint,
            Closed::Gone => Self::Gone,
        }
    }
}

impl From<Refusal> for DeliveryErrorCause {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotStarted => Self::NotStarted,
            Refusal::QueueFull => Self::QueueFull,
            Refusal::Stopped => Self::Abandoned,
            Refusal::UnknownEndpoint => Self::Removed,
            Refusal::Gone => Self::Gone,
        }
    }
}

/// A message that was delivered, and how.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Delivered {
    /// The message.
    pub message: Message,
    /// The attempts, in order; the last one succeeded, and those before it are [kept in
    /// short](DeliveryError::attempts).
    pub attempts: Vec<Attempt>,
}

impl Delivered {
    /// How many attempts were made.
    pub fn attempt_count(&self) -> u32 {
        attempt_count(&self.message, &self.attempts)
    }
}

/// How many attempts were made, of which the last one is always kept.
fn attempt_count(message: &Message, attempts: &[Attempt]) -> u32 {
    let first = message.first_attempt().get();
    attempts.last().map_or(0, |last| {
        last.number.saturating_sub(first).saturating_add(1)
    })
}

/// A delivery that failed for good: the message, what was tried, and why it ended.
#[derive(Debug)]
pub struct DeliveryError(Box<Failed>);

#[derive(Debug)]
struct Failed {
    message: Message,
    attempts: Vec<Attempt>,
    cause: DeliveryErrorCause,
    was_interrupted: bool,
    blocked_until: Option<Instant>,
}

/// Why a delivery failed for good.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum DeliveryErrorCause {
    /// The endpoint replied to the last attempt, and not with success.
    #[error("{}", status_text(*.0))]
    Status(StatusCode),
    /// The last attempt got no response.
    #[error(transparent)]
    Transport(AttemptError),
    /// The circuit breaker was open, and the delivery may not or can no longer wait.
    #[error("the circuit is open")]
    CircuitOpen,
    /// The endpoint asked with `Retry-After` to get no requests for a while, and the delivery may
    /// not or can no longer wait.
    #[error("the endpoint asked for no requests for a while")]
    RetryAfter,
    /// Sending stopped, or its runtime ended, before the final outcome was known.
    #[error("sending stopped before the outcome was known")]
    Abandoned,
    /// Sending was not started, so nothing was tried.
    #[error("sending was not started")]
    NotStarted,
    /// The queue had no free place for as long as the caller waited, so nothing was tried.
    #[error("the queue is full")]
    QueueFull,
    /// The endpoint was removed from the dispatcher before the final outcome was known, or was not
    /// there.
    #[error("the endpoint was removed")]
    Removed,
    /// The endpoint replied `410 Gone` to another message of the dispatcher before the final outcome
    /// was known. The message that got this reply has [`Status`](DeliveryErrorCause::Status).
    #[error("the endpoint is gone")]
    Gone,
}

/// The number of a status, and its name if HTTP gives it one.
fn status_text(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_str()),
        None => status.as_str().to_owned(),
    }
}

impl DeliveryError {
    pub(crate) fn new(message: Message, attempts: Vec<Attempt>, cause: DeliveryErrorCause) -> Self {
        Self(Box::new(Failed {
            message,
            attempts,
            cause,
            was_interrupted: false,
            blocked_until: None,
        }))
    }

    /// A message that was not accepted by a call that waits for the outcome, which counts it.
    pub(crate) fn refused(message: Message, reason: impl Into<Refusal>) -> Self {
        let reason = reason.into();
        catch(|| telemetry::dropped(reason.as_str()));
        Self::new(message, Vec::new(), reason.into())
    }

    pub(crate) fn with_interrupted_attempt(mut self) -> Self {
        self.0.was_interrupted = true;
        self
    }

    pub(crate) fn with_blocked_until(mut self, blocked_until: Option<Instant>) -> Self {
        self.0.blocked_until = blocked_until;
        self
    }

    /// The message that was not delivered.
    pub fn message(&self) -> &Message {
        &self.0.message
    }

    /// Takes the message back.
    pub fn into_message(self) -> Message {
        self.0.message
    }

    /// The attempts, in order. Empty if nothing was tried.
    ///
    /// Many messages may wait. So attempts after which a delivery had to wait are kept shortened:
    /// their number, the status or the kind of error, the duration to within 0.2 %, and the time to
    /// within a second a day since the acceptance. Of more than nine of them the first and the last
    /// seven are kept; a caller that waits for the outcome, with
    /// [`deliver`](crate::Client::deliver), gets every one.
    /// [`on_attempt`](crate::DispatcherBuilder::on_attempt) gets each attempt in full.
    pub fn attempts(&self) -> &[Attempt] {
        &self.0.attempts
    }

    /// How many attempts were made, also if not all of them were kept.
    pub fn attempt_count(&self) -> u32 {
        attempt_count(&self.0.message, &self.0.attempts)
    }

    /// Whether an attempt began, so that the endpoint may have received the message. An attempt
    /// that was interrupted by a stop counts, and is not among the [`attempts`](Self::attempts).
    pub fn was_attempted(&self) -> bool {
        self.0.was_interrupted || !self.0.attempts.is_empty()
    }

    /// Until when the endpoint gets no requests, as it was known when the delivery ended: until its
    /// open circuit is probed, or its `Retry-After` is over. Before that, sending the message again
    /// is pointless.
    ///
    /// `None` when nothing blocks the endpoint, or when its circuit was opened by hand and has no
    /// end.
    pub fn blocked_until(&self) -> Option<Instant> {
        self.0.blocked_until
    }

    /// Why it ended.
    pub fn cause(&self) -> &DeliveryErrorCause {
        &self.0.cause
    }

    /// The status of the last attempt, if the endpoint replied to it and that ended the delivery.
    pub fn status(&self) -> Option<StatusCode> {
        match self.0.cause {
            DeliveryErrorCause::Status(status) => Some(status),
            _ => None,
        }
    }

    /// Whether the cause is transient, so that sending the message again later may succeed.
    pub fn is_retryable(&self) -> bool {
        match &self.0.cause {
            DeliveryErrorCause::Status(_) | DeliveryErrorCause::Transport(_) => {
                let last = self.0.attempts.last();
                last.is_some_and(|attempt| attempt.verdict() == Verdict::Retryable)
            }
            DeliveryErrorCause::CircuitOpen
            | DeliveryErrorCause::RetryAfter
            | DeliveryErrorCause::Abandoned
            | DeliveryErrorCause::QueueFull
            | DeliveryErrorCause::NotStarted => true,
            DeliveryErrorCause::Removed | DeliveryErrorCause::Gone => false,
        }
    }
}

/// Such as `message msg_1 was not delivered after 3 attempts: 503 Service Unavailable`.
impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "message {} was not delivered", self.0.message.id())?;
        match self.attempt_count() {
            0 => {}
            1 => f.write_str(" after 1 attempt")?,
            attempts => write!(f, " after {attempts} attempts")?,
        }
        write!(f, ": {}", self.0.cause)
    }
}

/// The source of the cause: the text of the cause is a part of the error's text.
impl StdError for DeliveryError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.cause.source()
    }
}
