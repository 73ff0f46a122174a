use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;

use crate::{Error, Listener, Mailbox, Membership, Pattern, Received, Topic};

/// A stream of what is published to some topics, and to those that match some patterns.
///
/// It ends when the broker is closed and everything in its mailbox has been read. Dropping it
/// unsubscribes at once.
#[must_use = "a subscription ends when it is dropped"]
pub struct Subscription {
    // First, so that a dropped subscription is out of the broker before its mailbox closes.
    membership: DynMembership,
    inbox: Inbox,
}

impl Subscription {
    /// A subscription, for brokers to hand out: the reader of this mailbox, with this place in the
    /// broker.
    pub fn new(mailbox: Mailbox, membership: impl Membership) -> Self {
        Self {
            membership: Box::new(membership),
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
    /// that are in the mailbox stay there. A topic that it does not have is no error.
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

    /// Calls a handler with everything that comes, in a task of its own: one call at a time, in
    /// order. While a call lasts, messages wait in the mailbox.
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
        Listener::start(self.membership, self.inbox, handler)
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

/// Any [`Membership`].
pub(crate) type DynMembership = Box<dyn ErasedMembership>;

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

pub(crate) trait ErasedMembership: Send + Sync {
    fn join_boxed<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<(), Error>>;
    fn leave_boxed<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<(), Error>>;
    fn join_pattern_boxed<'a>(&'a self, it: &'a Pattern) -> BoxFuture<'a, Result<(), Error>>;
    fn leave_pattern_boxed<'a>(&'a self, it: &'a Pattern) -> BoxFuture<'a, Result<(), Error>>;
}

impl<M: Membership> ErasedMembership for M {
    fn join_boxed<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.join(topic))
    }

    fn leave_boxed<'a>(&'a self, topic: &'a Topic) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.leave(topic))
    }

    fn join_pattern_boxed<'a>(&'a self, it: &'a Pattern) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.join_pattern(it))
    }

    fn leave_pattern_boxed<'a>(&'a self, it: &'a Pattern) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.leave_pattern(it))
    }
}
