use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;

use crate::broker::directory::{Directory, Recipients};
use crate::broker::interest::Interest;
use crate::{
    Broker, Error, Mailbox, Membership, Message, Pattern, Publisher, SubscribeOptions, Subscriber,
    Subscription, Topic, Waiting, telemetry,
};

/// A broker within one process.
///
/// Publishing costs a lock for a moment and a push for each subscriber of the topic, and is immediate
/// unless a subscriber has chosen [`Overflow::Wait`](crate::Overflow::Wait). Each pattern that
/// is subscribed to costs every message a comparison.
///
/// Clones are the same broker. Dropping the last one closes it.
#[derive(Debug, Clone, Default)]
pub struct MemoryBroker {
    owner: Arc<Owner>,
}

impl MemoryBroker {
    /// A broker without subscriptions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Publishes as [`Publisher::publish`] does, without the allocation of a call through the trait.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], and [`Error::OutcomeUnknown`] when the broker is closed while it waits for room.
    ///
    /// # Cancel safety
    ///
    /// As for [`Publisher::publish`].
    pub async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<(), Error> {
        // All with room are served before any is waited for, which is rare: its future is kept apart.
        let published = match self.deliver(topic, payload) {
            Ok(waiting) if !waiting.is_empty() => Box::pin(self.wait_for_room(waiting)).await,
            delivered => delivered.map(drop),
        };
        telemetry::published(&published);
        published
    }

    /// Gives a message to all mailboxes that have room, and returns what waits for room in the others.
    fn deliver(&self, topic: &Topic, payload: Bytes) -> Result<Vec<Waiting>, Error> {
        let recipients = self.owner.shared.recipients(topic)?;
        let mut waiting = Vec::new();
        if !recipients.is_empty() {
            let message = Message::new(topic.clone(), payload);
            recipients.for_each(|mailbox| waiting.extend(mailbox.deliver(message.clone())));
        }
        Ok(waiting)
    }

    async fn wait_for_room(&self, waiting: Vec<Waiting>) -> Result<(), Error> {
        join_all(waiting.into_iter().map(Waiting::settle)).await;
        // Those it waited for have not got it if the broker was closed meanwhile. All others have.
        let open = self.owner.shared.lock();
        open.map(drop).map_err(|_| Error::closed_meanwhile())
    }
}

#[async_trait]
impl Publisher for MemoryBroker {
    async fn publish(&self, topic: &Topic, payload: Bytes) -> Result<(), Error> {
        Self::publish(self, topic, payload).await
    }
}

#[async_trait]
impl Subscriber for MemoryBroker {
    async fn subscribe(
        &self,
        topics: Vec<Topic>,
        options: SubscribeOptions,
    ) -> Result<Subscription, Error> {
        let shared = &self.owner.shared;
        let mailbox = Mailbox::new(options);
        let number = shared.lock()?.directory.add(&mailbox);
        let member = Member {
            shared: Arc::clone(shared),
            number,
            mailbox: mailbox.clone(),
            interests: Mutex::default(),
        };
        for topic in topics {
            member.enter(&topic)?;
        }
        Ok(Subscription::new(mailbox, member))
    }
}

#[async_trait]
impl Broker for MemoryBroker {
    async fn close(&self) {
        self.owner.shared.close();
    }
}

/// Closes the broker when the last handle that could publish is gone.
#[derive(Debug, Default)]
struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// What the clones of the broker, and its members, share.
#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    closed: bool,
    directory: Directory,
}

impl Shared {
    /// The directory, unless the broker is closed.
    fn lock(&self) -> Result<MutexGuard<'_, State>, Error> {
        let state = self.lock_even_closed();
        if state.closed {
            Err(Error::Closed)
        } else {
            Ok(state)
        }
    }

    fn recipients(&self, topic: &Topic) -> Result<Recipients, Error> {
        Ok(self.lock()?.directory.recipients(topic.as_str()))
    }

    fn lock_even_closed(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs under the lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        let mut state = self.lock_even_closed();
        state.closed = true;
        let directory = std::mem::take(&mut state.directory);
        drop(state);
        directory.close();
    }
}

/// One subscription's place.
#[derive(Debug)]
struct Member {
    shared: Arc<Shared>,
    number: u64,
    mailbox: Mailbox,
    /// What the directory has of it. Locked before the directory.
    interests: Mutex<HashSet<Interest>>,
}

impl Member {
    fn enter(&self, interest: impl Into<Interest>) -> Result<(), Error> {
        let interest = interest.into();
        let mut interests = self.interests();
        let mut state = self.shared.lock()?;
        state.directory.enter(&interest, self.number, &self.mailbox);
        interests.insert(interest);
        Ok(())
    }

    fn exit(&self, interest: impl Into<Interest>) -> Result<(), Error> {
        let interest = interest.into();
        let mut interests = self.interests();
        self.shared.lock()?.directory.leave(&interest, self.number);
        interests.remove(&interest);
        Ok(())
    }

    fn interests(&self) -> MutexGuard<'_, HashSet<Interest>> {
        // Nothing that can panic runs under the lock.
        self.interests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Membership for Member {
    async fn join(&self, topic: &Topic) -> Result<(), Error> {
        self.enter(topic)
    }

    async fn leave(&self, topic: &Topic) -> Result<(), Error> {
        self.exit(topic)
    }

    async fn join_pattern(&self, pattern: &Pattern) -> Result<(), Error> {
        self.enter(pattern)
    }

    async fn leave_pattern(&self, pattern: &Pattern) -> Result<(), Error> {
        self.exit(pattern)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let interests = std::mem::take(&mut *self.interests());
        let mut state = self.shared.lock_even_closed();
        state.directory.remove(self.number, &interests);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::Namespace;

    fn topics() -> [Topic; 2] {
        ["one", "two"].map(|name| Namespace::default().topic(name).unwrap())
    }

    fn is_empty(broker: &MemoryBroker) -> bool {
        broker.owner.shared.lock().unwrap().directory.is_empty()
    }

    #[tokio::test]
    async fn nothing_is_kept_of_what_is_gone() {
        let broker = MemoryBroker::new();
        let subscription = broker
            .subscribe(topics().into(), SubscribeOptions::default())
            .await;
        assert!(!is_empty(&broker));
        drop(subscription);
        assert!(is_empty(&broker));

        let subscription = broker
            .subscribe(topics().into(), SubscribeOptions::default())
            .await;
        drop(subscription.unwrap().handle(|_| std::future::pending()));
        assert!(is_empty(&broker));

        let subscription = broker
            .subscribe(topics().into(), SubscribeOptions::default())
            .await;
        for topic in topics() {
            subscription
                .as_ref()
                .unwrap()
                .topics()
                .remove(&topic)
                .await
                .unwrap();
        }
        let state = broker.owner.shared.lock().unwrap();
        assert!(topics().iter().all(|it| !state.directory.has(&it.into())));
    }

    #[tokio::test]
    async fn a_listener_that_is_stopping_is_gone_already() {
        let broker = MemoryBroker::new();
        let subscription = broker
            .subscribe(topics().into(), SubscribeOptions::default())
            .await;
        let listener = subscription.unwrap().handle(|_| std::future::pending());
        broker
            .publish(&topics()[0], "never handled".into())
            .await
            .unwrap();
        let mut stop = Box::pin(listener.stop());
        assert_eq!(stop.as_mut().now_or_never(), None);
        assert!(is_empty(&broker));
    }
}
