//! Handlers for one message and for many, as one thing.

use crate::{BatchError, BatchHandler, Handler, Message};

/// What a subscription does with the messages that one free place has claimed.
pub(crate) trait Work: Send + Sync + 'static {
    fn run(&self, messages: Vec<Message>) -> impl Future<Output = Result<(), BatchError>> + Send;
}

/// A handler for one message. It is given one at a time.
pub(crate) struct OneByOne<H>(pub(crate) H);

impl<H: Handler> Work for OneByOne<H> {
    async fn run(&self, messages: Vec<Message>) -> Result<(), BatchError> {
        for message in messages {
            self.0.handle(message).await?;
        }
        Ok(())
    }
}

/// A handler for many.
pub(crate) struct InBatches<H>(pub(crate) H);

impl<H: BatchHandler> Work for InBatches<H> {
    async fn run(&self, messages: Vec<Message>) -> Result<(), BatchError> {
        self.0.handle(messages).await
    }
}
