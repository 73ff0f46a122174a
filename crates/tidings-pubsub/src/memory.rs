use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::join_all;

use crate::directory::Directory;
use crate::{
    Broker, Error, Mailbox, Membership, Message, Options, Publisher, Subscriber, Subscription,
    Topic, Waiting,
};

/// A broker within one process.
///
/// Publishing costs a lock for a moment and a push for each subscriber of the topic, and waits for
/// nobody unless a subscriber has chosen [`Overflow::Wait`](crate::Overflow::Wait).
///
/// Clones are the same broker. Dropping the last one closes it.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    owner: Arc<Owner>,
}

impl Memory {
    /// A broker without subscriptions.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Publisher for Memory {
    async fn publish(&self, topic: &Topic, payload: impl Into<Bytes> + Send) -> Result<(), Error> {
        let message = Message::new(topic.clone(), payload);
        let Some(mailboxes) = self.owner.shared.lock()?.directory.mailboxes(topic) else {
            return Ok(());
        };
        // Everyone with room is served before anyone is waited for.
        let waiting: Vec<Waiting> = mailboxes
            .values()
            .filter_map(|mailbox| mailbox.deliver(message.clone()))
            .collect();
        if waiting.is_empty() {
            return Ok(());
        }
        join_all(waiting.into_iter().map(Waiting::settle)).await;
        // Those it waited for have not got it if the broker was closed meanwhile.
        self.owner.shared.lock().map(drop)
    }
}

impl Subscriber for Memory {
    async fn subscribe(
        &self,
        topics: impl IntoIterator<Item = Topic, IntoIter: Send> + Send,
        options: Options,
    ) -> Result<Subscription, Error> {
        let shared = &self.owner.shared;
        let mailbox = Mailbox::new(options);
        let number = shared.lock()?.directory.add(&mailbox);
        let member = Member {
            shared: Arc::clone(shared),
            number,
            mailbox: mailbox.clone(),
            topics: Mutex::default(),
        };
        for topic in topics {
            member.join(&topic).await?;
        }
        Ok(Subscription::new(mailbox, member))
    }
}

impl Broker for Memory {
    async fn close(&self) {
        self.owner.shared.close();
    }
}

/// Closes the broker when nobody is left who could publish.
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
    topics: Mutex<HashSet<Topic>>,
}

impl Member {
    fn topics(&self) -> MutexGuard<'_, HashSet<Topic>> {
        // Nothing that can panic runs under the lock.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Membership for Member {
    async fn join(&self, topic: &Topic) -> Result<(), Error> {
        let mut topics = self.topics();
        let mut state = self.shared.lock()?;
        state.directory.enter(topic, self.number, &self.mailbox);
        topics.insert(topic.clone());
        Ok(())
    }

    async fn leave(&self, topic: &Topic) -> Result<(), Error> {
        let mut topics = self.topics();
        self.shared.lock()?.directory.leave(topic, self.number);
        topics.remove(topic);
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let topics = std::mem::take(&mut *self.topics());
        let mut state = self.shared.lock_even_closed();
        state.directory.remove(self.number, &topics);
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

    fn is_empty(broker: &Memory) -> bool {
        broker.owner.shared.lock().unwrap().directory.is_empty()
    }

    #[tokio::test]
    async fn nothing_is_kept_of_what_is_gone() {
        let broker = Memory::new();
        let subscription = broker.subscribe(topics(), Options::default()).await;
        assert!(!is_empty(&broker));
        drop(subscription);
        assert!(is_empty(&broker));

        let subscription = broker.subscribe(topics(), Options::default()).await;
        drop(subscription.unwrap().handle(|_| std::future::pending()));
        assert!(is_empty(&broker));

        let subscription = broker.subscribe(topics(), Options::default()).await;
        for topic in topics() {
            subscription
                .as_ref()
                .unwrap()
                .unsubscribe(&topic)
                .await
                .unwrap();
        }
        let state = broker.owner.shared.lock().unwrap();
        assert!(topics().iter().all(|topic| !state.directory.has(topic)));
    }

    #[tokio::test]
    async fn a_listener_that_is_stopping_is_gone_already() {
        let broker = Memory::new();
        let subscription = broker.subscribe(topics(), Options::default()).await;
        let listener = subscription.unwrap().handle(|_| std::future::pending());
        broker.publish(&topics()[0], "never handled").await.unwrap();
        let mut stop = Box::pin(listener.stop());
        assert_eq!(stop.as_mut().now_or_never(), None);
        assert!(is_empty(&broker));
    }
}
