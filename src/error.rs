use std::error::Error as StdError;
use std::fmt;

use http::StatusCode;
use tokio::time::Instant;

use crate::sender::{Attempt, AttemptError};
use crate::{Message, Verdict};

/// A setting that cannot be used, found when the thing it belongs to is built.
#[derive(Debug)]
pub struct ConfigError {
    field: &'static str,
    expected: &'static str,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl ConfigError {
    pub(crate) fn new(field: &'static str, expected: &'static str) -> Self {
        Self {
            field,
            expected,
            source: None,
        }
    }

    pub(crate) fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }

    /// The setting, by the name of the function that sets it.
    pub fn field(&self) -> &'static str {
        self.field
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: expected {}", self.field, self.expected)
    }
}

impl StdError for ConfigError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// A message that a [`Client`](crate::Client) or a [`Dispatcher`](crate::Dispatcher) did not accept,
/// handed back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotifyError {
    /// [`start`](crate::Client::start) was not called yet.
    #[error("the client is not started")]
    NotStarted(Message),
    /// As many deliveries as the queue may hold are queued or wait for their next attempt.
    #[error("the queue is full")]
    QueueFull(Message),
    /// The client is stopping, or has stopped.
    #[error("the client is stopped")]
    Stopped(Message),
    /// A dispatcher does not have the endpoint, or not any more.
    #[error("the endpoint is not known")]
    UnknownEndpoint(Message),
    /// A dispatcher's endpoint answered `410 Gone`, and gets nothing until it is
    /// [inserted](crate::Dispatcher::insert) again.
    #[error("the endpoint is gone")]
    Gone(Message),
}

impl NotifyError {
    /// The message that was not accepted.
    pub fn message(&self) -> &Message {
        match self {
            Self::NotStarted(message)
            | Self::QueueFull(message)
            | Self::Stopped(message)
            | Self::UnknownEndpoint(message)
            | Self::Gone(message) => message,
        }
    }

    /// Takes the message back.
    pub fn into_message(self) -> Message {
        match self {
            Self::NotStarted(message)
            | Self::QueueFull(message)
            | Self::Stopped(message)
            | Self::UnknownEndpoint(message)
            | Self::Gone(message) => message,
        }
    }
}

/// A delivery that failed for good: the message, what was tried, and why it ended.
#[derive(Debug)]
pub struct DeliveryError(Box<Failure>);

#[derive(Debug)]
struct Failure {
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
    /// The endpoint answered the last attempt, and not with success.
    #[error("the endpoint answered {0}")]
    Status(StatusCode),
    /// The last attempt brought no answer.
    #[error("the endpoint did not answer")]
    Transport(#[source] AttemptError),
    /// The circuit breaker was open, and the delivery may not or can no longer wait.
    #[error("the circuit is open")]
    CircuitOpen,
    /// The endpoint asked with `Retry-After` to get no requests for a while, and the delivery may
    /// not or can no longer wait.
    #[error("the endpoint asked for no requests for a while")]
    RetryAfter,
    /// The client stopped before the final outcome was known.
    #[error("the client stopped first")]
    Abandoned,
    /// The client was not started, so nothing was tried.
    #[error("the client is not started")]
    NotStarted,
    /// The endpoint was removed from the dispatcher before the final outcome was known, or was not
    /// there.
    #[error("the endpoint was removed")]
    Removed,
    /// The endpoint answered another message of the dispatcher with `410 Gone` before the final
    /// outcome was known. The message that was answered so has
    /// [`Status`](DeliveryErrorCause::Status).
    #[error("the endpoint is gone")]
    Gone,
}

/// A message that was not accepted for [`Client::deliver`](crate::Client::deliver).
impl From<NotifyError> for DeliveryError {
    fn from(error: NotifyError) -> Self {
        let cause = match &error {
            NotifyError::NotStarted(_) => DeliveryErrorCause::NotStarted,
            NotifyError::QueueFull(_) | NotifyError::Stopped(_) => DeliveryErrorCause::Abandoned,
            NotifyError::UnknownEndpoint(_) => DeliveryErrorCause::Removed,
            NotifyError::Gone(_) => DeliveryErrorCause::Gone,
        };
        Self::new(error.into_message(), Vec::new(), cause)
    }
}

impl DeliveryError {
    pub(crate) fn new(message: Message, attempts: Vec<Attempt>, cause: DeliveryErrorCause) -> Self {
        Self(Box::new(Failure {
            message,
            attempts,
            cause,
            was_interrupted: false,
            blocked_until: None,
        }))
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

    /// Every attempt, in order. Empty when nothing was tried.
    pub fn attempts(&self) -> &[Attempt] {
        &self.0.attempts
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

    /// The status of the last attempt, when the endpoint answered it and that ended the delivery.
    pub fn status(&self) -> Option<StatusCode> {
        match self.0.cause {
            DeliveryErrorCause::Status(status) => Some(status),
            _ => None,
        }
    }

    /// Whether the cause is transient, so that sending the message again later may succeed.
    pub fn is_retryable(&self) -> bool {
        match &self.0.cause {
            DeliveryErrorCause::Status(status) => Verdict::of_status(*status) == Verdict::Retryable,
            DeliveryErrorCause::Transport(error) => error.kind().is_retryable(),
            DeliveryErrorCause::CircuitOpen
            | DeliveryErrorCause::RetryAfter
            | DeliveryErrorCause::Abandoned
            | DeliveryErrorCause::NotStarted => true,
            DeliveryErrorCause::Removed | DeliveryErrorCause::Gone => false,
        }
    }
}

impl fmt::Display for DeliveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (id, attempts) = (self.0.message.id(), self.0.attempts.len());
        let plural = if attempts == 1 { "" } else { "s" };
        write!(
            f,
            "message {id} was not delivered after {attempts} attempt{plural}"
        )
    }
}

impl StdError for DeliveryError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.0.cause)
    }
}
