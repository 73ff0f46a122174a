use std::fmt;
use std::time::Duration;

use crate::Message;

/// Does the work that a message asks for.
///
/// Every `async` function or closure from [`Message`] to `Result<(), HandlerError>` is one. Its
/// future is dropped, at whatever await it stands, when it runs longer than its
/// [time](crate::SubscribeOptions::with_handler_timeout) or is still running when closing has
/// waited long enough.
///
/// Delivery is at least once: a crash between the work and its acknowledgement brings the message
/// again, with a higher [`attempt`](Message::attempt). Make the effects idempotent.
pub trait Handler: Send + Sync + 'static {
    /// Handles one message. `Ok` acknowledges it; an error, or a panic, brings it again later.
    fn handle(&self, message: Message) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

impl<F, Fut> Handler for F
where
    F: Fn(Message) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    fn handle(&self, message: Message) -> impl Future<Output = Result<(), HandlerError>> + Send {
        self(message)
    }
}

/// Why a handler failed, and what is to become of the message.
///
/// Any error turns into one with `?`, and means [`retry`](Self::retry).
pub struct HandlerError {
    pub(crate) source: Box<dyn std::error::Error + Send + Sync>,
    pub(crate) verdict: Verdict,
}

/// What a failed handler wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Another attempt, after the subscription's own delay.
    Retry,
    /// Another attempt after this delay.
    RetryAfter(Duration),
    /// No other attempt.
    SkipRetry,
}

impl HandlerError {
    /// Asks for another attempt, after the delay that the subscription is set to.
    pub fn retry(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            source: source.into(),
            verdict: Verdict::Retry,
        }
    }

    /// Asks for another attempt after a delay; zero means at once.
    pub fn retry_after(
        delay: Duration,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self {
            source: source.into(),
            verdict: Verdict::RetryAfter(delay),
        }
    }

    /// Sends the message to the dead letters now, whatever attempts are left.
    pub fn skip_retry(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self {
            source: source.into(),
            verdict: Verdict::SkipRetry,
        }
    }
}

impl fmt::Debug for HandlerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandlerError")
            .field("verdict", &self.verdict)
            .field("source", &self.source)
            .finish()
    }
}

/// There is no `Display` and no `Error` beside this: like the errors of `anyhow`, a type that is
/// made from every error cannot be one.
impl<E: std::error::Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(source: E) -> Self {
        Self::retry(source)
    }
}
