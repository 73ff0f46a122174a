use std::collections::BTreeMap;

use super::handler::WithContext;
use crate::{Context, HandlerError, Message, MessageId};

/// Does the work that several messages ask for, at once: a bulk insert, one request for many.
///
/// Every `async` function or closure from `Vec<Message>` to `Result<(), BatchError>` is one;
/// [`batch_with_context`] makes one of a closure that takes a [`Context`] as well. A batch has the time
/// limit that one message has for a [`Handler`](crate::Handler). The messages of a batch are of one
/// stream, in the order of their claim; there is at least one, and at most as many as
/// [`with_max_batch`](crate::SubscribeOptions::with_max_batch) says.
pub trait BatchHandler: Send + Sync + 'static {
    /// Handles a batch. `Ok` acknowledges all of its messages; a [`BatchError`] says which of them
    /// failed, and the others are acknowledged. After a panic all of them are delivered again later.
    fn handle(
        &self,
        messages: Vec<Message>,
        context: Context,
    ) -> impl Future<Output = Result<(), BatchError>> + Send;
}

impl<F, Fut> BatchHandler for F
where
    F: Fn(Vec<Message>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), BatchError>> + Send,
{
    async fn handle(&self, messages: Vec<Message>, _: Context) -> Result<(), BatchError> {
        self(messages).await
    }
}

/// Makes a [`BatchHandler`] of a closure that takes the [`Context`] of a call as well.
pub fn batch_with_context<F, Fut>(handler: F) -> WithContext<F>
where
    F: Fn(Vec<Message>, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), BatchError>> + Send,
{
    WithContext(handler)
}

impl<F, Fut> BatchHandler for WithContext<F>
where
    F: Fn(Vec<Message>, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), BatchError>> + Send,
{
    async fn handle(&self, messages: Vec<Message>, context: Context) -> Result<(), BatchError> {
        self.0(messages, context).await
    }
}

/// Which messages of a batch failed.
///
/// Any error turns into one with `?`, and means that all of them did.
///
/// ```
/// use tidings_stream::{BatchError, HandlerError, Message};
///
/// async fn index(messages: Vec<Message>) -> Result<(), BatchError> {
///     let mut failed = BatchError::none();
///     for message in &messages {
///         if message.payload.is_empty() {
///             failed.push(message.id, HandlerError::skip_retry("nothing to index"));
///         }
///     }
///     failed.into_result()
/// }
/// ```
#[derive(Debug)]
pub struct BatchError(Failed);

#[derive(Debug)]
enum Failed {
    All(HandlerError),
    Some(BTreeMap<MessageId, HandlerError>),
}

impl BatchError {
    /// All messages failed, for the same reason.
    pub fn all(error: impl Into<HandlerError>) -> Self {
        Self(Failed::All(error.into()))
    }

    /// No message failed so far: to [`push`](Self::push) those that do.
    pub fn none() -> Self {
        Self(Failed::Some(BTreeMap::new()))
    }

    /// Adds a message that failed. Ids that are not of the batch are ignored in the end.
    pub fn push(&mut self, id: MessageId, error: impl Into<HandlerError>) {
        if let Failed::Some(failed) = &mut self.0 {
            failed.insert(id, error.into());
        }
    }

    /// `Ok` when no message failed.
    ///
    /// # Errors
    ///
    /// Itself, when one did.
    pub fn into_result(self) -> Result<(), Self> {
        match &self.0 {
            Failed::Some(failed) if failed.is_empty() => Ok(()),
            _ => Err(self),
        }
    }

    /// Whether no message was begun.
    pub(super) fn is_release(&self) -> bool {
        matches!(&self.0, Failed::All(error) if error.is_release())
    }

    /// The error of a message; `None` if it did not fail.
    pub(crate) fn of(&self, id: MessageId) -> Option<&HandlerError> {
        match &self.0 {
            Failed::All(error) => Some(error),
            Failed::Some(failed) => failed.get(&id),
        }
    }
}

impl From<HandlerError> for BatchError {
    fn from(error: HandlerError) -> Self {
        Self::all(error)
    }
}

/// There is no `Error` beside this, as for [`HandlerError`].
impl<E: std::error::Error + Send + Sync + 'static> From<E> for BatchError {
    fn from(source: E) -> Self {
        Self::all(source)
    }
}
