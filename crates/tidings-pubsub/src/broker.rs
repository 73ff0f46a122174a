use std::future::ready;

use bytes::Bytes;

use crate::{Error, Options, Pattern, Subscription, Topic};

/// Sends messages to topics.
///
/// # Contract
///
/// - A message reaches every subscription that has its topic, or a pattern that matches it, when `publish` is called. `Ok` means
///   that it was sent, not that anybody got it.
/// - Messages that are published one after the other, each once the one before was answered, arrive
///   in this order at each subscription, over all topics.
/// - The payload arrives byte for byte, whatever its bytes are.
pub trait Publisher: Send + Sync + 'static {
    /// Sends a message to those who have the topic now. When nobody has, it is dropped, and that is
    /// no error.
    ///
    /// It waits for a subscriber only when that one has chosen [`Overflow::Wait`](crate::Overflow),
    /// and not before every other has its copy.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] once the broker is closed; it may then have been sent or not.
    /// [`Error::Backend`] when it was not sent, [`Error::Unanswered`] when nobody knows.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have sent the message to all, to some or to none. Subscribers for whose
    /// room it was waiting are told that they lag.
    fn publish(
        &self,
        topic: &Topic,
        payload: impl Into<Bytes> + Send,
    ) -> impl Future<Output = Result<(), Error>> + Send;
}

/// Makes subscriptions.
///
/// # Contract
///
/// - When `subscribe` has answered, the subscription gets what is published from then on.
/// - Each subscription gets its own copy of each message, once, however often it has asked for the
///   topic, and however many of its patterns match it too.
/// - A subscriber that does not read delays no other.
/// - Messages that a subscription misses are reported to it, in the place where they are missing.
pub trait Subscriber: Send + Sync + 'static {
    /// Subscribes to these topics; there may be none at first.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] once the broker is closed, [`Error::Backend`] when its server cannot be
    /// reached or refuses a topic. Trying again later is fine.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no subscription behind.
    fn subscribe(
        &self,
        topics: impl IntoIterator<Item = Topic, IntoIter: Send> + Send,
        options: Options,
    ) -> impl Future<Output = Result<Subscription, Error>> + Send;
}

/// A publisher and subscriber that can be closed.
pub trait Broker: Publisher + Subscriber {
    /// Ends everything: what is called from now on answers [`Error::Closed`], and subscriptions end
    /// once what is in their mailboxes has been read. Closing twice is harmless.
    ///
    /// It does not wait for subscribers; [`Listener::stop`](crate::Listener::stop) does.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has closed the broker, but may have left the release of its connections to
    /// the background.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// One subscription's place in a broker: which topics and patterns go to its [`Mailbox`](crate::Mailbox).
///
/// Whoever writes a broker implements this; whoever uses one calls the functions of the same
/// meaning of [`Subscription`].
///
/// # Contract
///
/// Dropping it leaves everything and waits for nothing.
pub trait Membership: Send + Sync + 'static {
    /// Lets a topic's messages into the mailbox from now on. A topic that it has already stays as it
    /// is.
    fn join(&self, topic: &Topic) -> impl Future<Output = Result<(), Error>> + Send;

    /// Lets in no message that is published from now on, unless a pattern does. A topic that it does
    /// not have is no error.
    fn leave(&self, topic: &Topic) -> impl Future<Output = Result<(), Error>> + Send;

    /// Lets the messages of all topics that match into the mailbox from now on. Brokers that have no
    /// patterns leave this as it is: it answers [`Error::NoPatterns`].
    fn join_pattern(&self, pattern: &Pattern) -> impl Future<Output = Result<(), Error>> + Send {
        let _ = pattern;
        ready(Err(Error::NoPatterns))
    }

    /// Lets in no message that is published from now on, unless its topic or another pattern does. A
    /// pattern that it does not have is no error.
    fn leave_pattern(&self, pattern: &Pattern) -> impl Future<Output = Result<(), Error>> + Send {
        let _ = pattern;
        ready(Err(Error::NoPatterns))
    }
}
