use std::fmt;
use std::panic::AssertUnwindSafe;

use futures_util::FutureExt;
use tokio_util::task::AbortOnDropHandle;

use crate::subscription::{DynMembership, Inbox};
use crate::{Error, Pattern, Received, Topic};

/// A handler that is called with what is published to some topics, in a task of its own.
///
/// Made by [`Subscription::handle`](crate::Subscription::handle). Dropping it unsubscribes at once
/// and ends a call that is running where it awaits; [`stop`](Self::stop) lets it finish.
#[must_use = "a listener ends when it is dropped"]
pub struct Listener {
    membership: DynMembership,
    inbox: Inbox,
    task: AbortOnDropHandle<()>,
}

impl Listener {
    pub(crate) fn start<H, F>(membership: DynMembership, inbox: Inbox, handler: H) -> Self
    where
        H: FnMut(Received) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let read = Inbox(inbox.0.clone());
        Self {
            membership,
            inbox,
            task: AbortOnDropHandle::new(tokio::spawn(call(handler, read))),
        }
    }

    /// Gets the messages of this topic too, from now on. A topic that it has already stays as it is.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] once the broker is closed, [`Error::Backend`] when its server cannot be
    /// reached or refuses the topic.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave the topic subscribed or not.
    pub async fn subscribe(&self, topic: &Topic) -> Result<(), Error> {
        self.membership.join_boxed(topic).await
    }

    /// Gets no message of this topic that is published from now on, unless a pattern brings it; those
    /// that are in the mailbox are still handled. A topic that it does not have is no error.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] once the broker is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave the topic subscribed or not.
    pub async fn unsubscribe(&self, topic: &Topic) -> Result<(), Error> {
        self.membership.leave_boxed(topic).await
    }

    /// Gets the messages of every topic that matches too, from now on. Who also has such a topic, or
    /// another pattern that matches it, gets its messages once.
    ///
    /// # Errors
    ///
    /// [`Error::NoPatterns`] when the broker has none, [`Error::Closed`] once it is closed,
    /// [`Error::Backend`] when its server cannot be reached or refuses the pattern.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave the pattern subscribed or not.
    pub async fn subscribe_pattern(&self, pattern: &Pattern) -> Result<(), Error> {
        self.membership.join_pattern_boxed(pattern).await
    }

    /// Gets no message that is published from now on because of this pattern; topics, and other
    /// patterns, stay as they are. A pattern that it does not have is no error.
    ///
    /// # Errors
    ///
    /// [`Error::NoPatterns`] when the broker has none, [`Error::Closed`] once it is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future may leave the pattern subscribed or not.
    pub async fn unsubscribe_pattern(&self, pattern: &Pattern) -> Result<(), Error> {
        self.membership.leave_pattern_boxed(pattern).await
    }

    /// Unsubscribes, and waits until the handler has been called with all that is in the mailbox
    /// and has returned.
    ///
    /// Not to be called by the handler itself, which would wait for its own end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops the listener.
    pub async fn stop(self) {
        drop(self.membership);
        self.inbox.0.close();
        // The task catches the handler's panics, and only a drop of the listener aborts it.
        let _ended = self.task.await;
    }
}

/// Calls the handler until the mailbox is closed and empty.
async fn call<H, F>(mut handler: H, mut inbox: Inbox)
where
    H: FnMut(Received) -> F + Send,
    F: Future<Output = ()> + Send,
{
    while let Some(received) = inbox.recv().await {
        // What the handler shares with others is its own business after a panic, as it would be
        // with a task for each call.
        let called = AssertUnwindSafe(async { handler(received).await });
        if called.catch_unwind().await.is_err() {
            tracing::error!("a handler of messages panicked");
        }
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("mailbox", &self.inbox.0)
            .finish_non_exhaustive()
    }
}
