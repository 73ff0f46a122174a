//! The contract of brokers, and the brokers.

mod directory;
mod interest;
mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod remote;

use async_trait::async_trait;
use bytes::Bytes;

pub use memory::MemoryBroker;

use crate::{Error, Pattern, SubscribeOptions, Subscription, Topic};

/// Sends messages to topics.
///
/// # Contract
///
/// - A message reaches every subscription that has its topic, or a pattern that matches it, when
///   `publish` is called. `Ok` means that it was sent, not that a subscriber got it.
/// - Messages that are published one after the other, each after `publish` has returned for the one
///   before, arrive in this order at each subscription, over all topics.
/// - The payload arrives byte for byte, whatever its bytes are.
#[async_trait]
pub trait Publisher: Send + Sync + 'static {
    /// Sends a message to all current subscribers of the topic. Without subscribers it is dropped,
    /// which is no error.
    ///
    /// It waits for a subscriber only if that subscriber has chosen
    /// [`Overflow::Wait`](crate::Overflow), and only after all others have their copies.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] once the broker is closed, and [`Error::Backend`]: the message was not sent.
    /// [`Error::OutcomeUnknown`] when that is unknown, also because the broker was closed meanwhile.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have sent the message to all, to some or to none. Subscribers whose
    /// mailbox had no room yet get `Lagged`.
    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<(), Error>;
}

/// Makes subscriptions.
///
/// # Contract
///
/// - When `subscribe` has returned, the subscription gets every message that is published from then
///   on.
/// - Each subscription gets its own copy of each message, once, however many of its topics and patterns
///   match.
/// - A subscriber that does not read delays no other.
/// - Messages that a subscription misses are reported to it, in the place where they are missing.
#[async_trait]
pub trait Subscriber: Send + Sync + 'static {
    /// Subscribes to these topics; there may be none at first.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] once the broker is closed, [`Error::Backend`] when its server cannot be
    /// reached or refuses a topic. The call may be repeated later.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves no subscription behind.
    async fn subscribe(
        &self,
        topics: Vec<Topic>,
        options: SubscribeOptions,
    ) -> Result<Subscription, Error>;
}

/// A publisher and subscriber that can be closed. Programs that choose a broker at run time use it as
/// `Arc<dyn Broker>`.
#[async_trait]
pub trait Broker: Publisher + Subscriber {
    /// Ends everything: later calls return [`Error::Closed`], messages that are under way may be sent or not, and subscriptions end once their
    /// mailboxes have been read. Closing twice is harmless.
    ///
    /// It does not wait for subscribers; [`Listener::stop`](crate::Listener::stop) does.
    ///
    /// # Cancel safety
    ///
    /// A dropped future has closed the broker; its connections may be released in the background.
    async fn close(&self);
}

/// The membership of one subscription in a broker: which topics and patterns lead to its
/// [`Mailbox`](crate::Mailbox).
///
/// Brokers implement it; subscribers use it through [`Topics`](crate::Topics).
///
/// # Contract
///
/// Dropping it leaves all topics and patterns at once, without waiting.
#[async_trait]
pub trait Membership: Send + Sync + 'static {
    /// Delivers the topic's messages to the mailbox from now on. A topic that it has already stays as
    /// it is.
    async fn join(&self, topic: &Topic) -> Result<(), Error>;

    /// Delivers no message of the topic that is published from now on, unless a pattern matches. A
    /// topic that it does not have is no error.
    async fn leave(&self, topic: &Topic) -> Result<(), Error>;

    /// Delivers the messages of all topics that match to the mailbox from now on. The default is for
    /// brokers without patterns: it returns [`Error::NoPatterns`].
    async fn join_pattern(&self, pattern: &Pattern) -> Result<(), Error> {
        let _ = pattern;
        Err(Error::NoPatterns)
    }

    /// Stops delivery of messages that this pattern alone matches; topics and other patterns stay. A
    /// pattern that it does not have is no error.
    async fn leave_pattern(&self, pattern: &Pattern) -> Result<(), Error> {
        let _ = pattern;
        Err(Error::NoPatterns)
    }
}
