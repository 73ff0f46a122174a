use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::Message;

/// Does the work that a message asks for.
///
/// Every `async` function or closure from [`Message`] to `Result<(), HandlerError>` is one;
/// [`with_context`] makes one of a closure that takes a [`Context`] as well. The future is dropped, at
/// whatever await it has reached, if it runs longer than its
/// [time](crate::SubscribeOptions::with_handler_timeout) or is still running when closing has
/// waited long enough.
///
/// Delivery is at least once: after a crash between the work and its acknowledgement the message is
/// delivered again, with a higher [`attempt`](Message::attempt). Make the effects idempotent, or settle the
/// message [in the transaction](crate#in-a-transaction) that has them.
pub trait Handler: Send + Sync + 'static {
    /// Handles one message. `Ok` acknowledges it; after an error or a panic it is delivered again
    /// later.
    fn handle(
        &self,
        message: Message,
        context: Context,
    ) -> impl Future<Output = Result<(), HandlerError>> + Send;
}

impl<F, Fut> Handler for F
where
    F: Fn(Message) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    async fn handle(&self, message: Message, _: Context) -> Result<(), HandlerError> {
        self(message).await
    }
}

/// What a handler is given beside its message.
#[derive(Debug, Clone)]
pub struct Context {
    closing: Arc<CancellationToken>,
}

impl Context {
    pub(crate) fn new(closing: Arc<CancellationToken>) -> Self {
        Self { closing }
    }

    /// A token that is cancelled when closing begins. The handler may continue for as long as the
    /// [shutdown timeout](crate::SubscribeOptions::with_shutdown_timeout) says, or save what it has
    /// done and return.
    pub fn closing(&self) -> &CancellationToken {
        &self.closing
    }
}

/// A handler that takes a [`Context`]: see [`with_context`].
#[derive(Debug, Clone)]
pub struct WithContext<F>(pub(crate) F);

/// Makes a [`Handler`] of a closure that takes the context of a call as well.
///
/// ```
/// use tidings_stream::{Context, HandlerError, Message, with_context};
///
/// let handler = with_context(|message: Message, context: Context| async move {
///     for part in message.payload.chunks(1024) {
///         if context.closing().is_cancelled() {
///             return Err(HandlerError::retry("the consumer is closing"));
///         }
///         // Work on the part, and save how far it has come.
///         # let _ = part;
///     }
///     Ok(())
/// });
/// # fn is_handler(_: impl tidings_stream::Handler) {}
/// # is_handler(handler);
/// ```
pub fn with_context<F, Fut>(handler: F) -> WithContext<F>
where
    F: Fn(Message, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    WithContext(handler)
}

impl<F, Fut> Handler for WithContext<F>
where
    F: Fn(Message, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), HandlerError>> + Send,
{
    async fn handle(&self, message: Message, context: Context) -> Result<(), HandlerError> {
        self.0(message, context).await
    }
}

/// Why a handler failed, and what happens to the message.
///
/// Any error turns into one with `?`, and means [`retry`](Self::retry). It is no `Error` itself: like the errors
/// of `anyhow`, a type that is made from every error cannot be one.
#[derive(Debug)]
pub struct HandlerError {
    pub(crate) verdict: Verdict,
    pub(crate) source: Box<dyn std::error::Error + Send + Sync>,
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
    /// None of this counts: nothing was begun.
    Release,
}

impl HandlerError {
    /// Asks for another attempt, after the delay that the subscription is set to.
    pub fn retry(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(Verdict::Retry, source)
    }

    /// Asks for another attempt after a delay; zero means at once.
    pub fn retry_after(
        delay: Duration,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::new(Verdict::RetryAfter(delay), source)
    }

    /// Sends the message to the dead letters now, whatever attempts are left.
    pub fn skip_retry(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::new(Verdict::SkipRetry, source)
    }

    /// Gives the message back as if no handler had had it.
    pub(super) fn release() -> Self {
        Self::new(Verdict::Release, "the message was not taken")
    }

    fn new(verdict: Verdict, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let source = source.into();
        Self { verdict, source }
    }

    pub(super) fn is_release(&self) -> bool {
        self.verdict == Verdict::Release
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for HandlerError {
    fn from(source: E) -> Self {
        Self::retry(source)
    }
}
