use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;

use crate::{Listener, Mailbox, Membership, Received, Topics};

/// A stream of the messages of some topics and patterns.
///
/// It ends when the broker is closed and everything in its mailbox has been read. Dropping it
/// unsubscribes at once.
#[must_use = "a subscription ends when it is dropped"]
pub struct Subscription {
    // First, so that a dropped subscription is out of the broker before its mailbox closes.
    topics: Topics,
    inbox: Inbox,
}

impl Subscription {
    /// Makes a subscription, in the code of a broker: it reads this mailbox, and changes its topics
    /// through this membership.
    pub fn new(mailbox: Mailbox, membership: impl Membership) -> Self {
        Self {
            topics: Topics::new(membership),
            inbox: Inbox(mailbox),
        }
    }

    /// The next message, or the report that messages are missing; `None` at the end.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Received> {
        self.inbox.recv().await
    }

    /// Its topics and patterns, to be changed while it lives.
    pub fn topics(&self) -> &Topics {
        &self.topics
    }

    /// Calls a handler with everything that arrives, in a task of its own: one call at a time, in
    /// order. Messages wait in the mailbox while a call lasts.
    ///
    /// A call that panics is logged, and the next one follows.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which the task needs.
    pub fn handle<H, F>(self, handler: H) -> Listener
    where
        H: FnMut(Received) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        Listener::start(self.topics, self.inbox, handler)
    }
}

impl Stream for Subscription {
    type Item = Received;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Received>> {
        self.inbox.0.poll_next(cx)
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("mailbox", &self.inbox.0)
            .finish_non_exhaustive()
    }
}

/// The reader's end of a mailbox: dropping it abandons the mailbox.
pub(crate) struct Inbox(pub(crate) Mailbox);

impl Inbox {
    pub(crate) async fn recv(&mut self) -> Option<Received> {
        poll_fn(|cx| self.0.poll_next(cx)).await
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
