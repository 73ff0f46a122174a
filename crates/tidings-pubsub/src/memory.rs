use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::join_all;

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
        let Some(mailboxes) = self.owner.directory.lock()?.mailboxes(topic) else {
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
        self.owner.directory.lock().map(drop)
    }
}

impl Subscriber for Memory {
    async fn subscribe(
        &self,
        topics: impl IntoIterator<Item = Topic, IntoIter: Send> + Send,
        options: Options,
    ) -> Result<Subscription, Error> {
        let directory = &self.owner.directory;
        let mailbox = Mailbox::new(options);
        let number = directory.lock()?.add(&mailbox);
        let member = Member {
            directory: Arc::clone(directory),
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
        self.owner.directory.close();
    }
}

/// Closes the broker when nobody is left who could publish.
#[derive(Debug, Default)]
struct Owner {
    directory: Arc<Directory>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.directory.close();
    }
}

/// Who has which topic.
#[derive(Debug, Default)]
struct Directory(Mutex<State>);

/// The mailboxes of one topic, by the number of their subscription. A publisher takes a clone of
/// the `Arc` and delivers without the lock; a change copies the map only while one does.
type Mailboxes = Arc<HashMap<u64, Mailbox>>;

#[derive(Debug, Default)]
struct State {
    closed: bool,
    last_number: u64,
    members: HashMap<u64, Mailbox>,
    topics: HashMap<Topic, Mailboxes>,
}

impl Directory {
    /// The state, unless the broker is closed.
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
        let members = std::mem::take(&mut state.members);
        let topics = std::mem::take(&mut state.topics);
        drop(state);
        for mailbox in members.values() {
            mailbox.close();
        }
        drop(topics);
    }
}

impl State {
    fn add(&mut self, mailbox: &Mailbox) -> u64 {
        self.last_number += 1;
        self.members.insert(self.last_number, mailbox.clone());
        self.last_number
    }

    fn mailboxes(&self, topic: &Topic) -> Option<Mailboxes> {
        self.topics.get(topic).cloned()
    }

    fn enter(&mut self, topic: &Topic, number: u64, mailbox: &Mailbox) {
        let mailboxes = self.topics.entry(topic.clone()).or_default();
        Arc::make_mut(mailboxes).insert(number, mailbox.clone());
    }

    fn remove(&mut self, topic: &Topic, number: u64) {
        if let Some(mailboxes) = self.topics.get_mut(topic) {
            Arc::make_mut(mailboxes).remove(&number);
            if mailboxes.is_empty() {
                self.topics.remove(topic);
            }
        }
    }
}

/// One subscription's place.
#[derive(Debug)]
struct Member {
    directory: Arc<Directory>,
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
        self.directory
            .lock()?
            .enter(topic, self.number, &self.mailbox);
        topics.insert(topic.clone());
        Ok(())
    }

    async fn leave(&self, topic: &Topic) -> Result<(), Error> {
        let mut topics = self.topics();
        self.directory.lock()?.remove(topic, self.number);
        topics.remove(topic);
        Ok(())
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let topics = std::mem::take(&mut *self.topics());
        let mut state = self.directory.lock_even_closed();
        state.members.remove(&self.number);
        for topic in &topics {
            state.remove(topic, self.number);
        }
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
        let state = broker.owner.directory.lock().unwrap();
        state.members.is_empty() && state.topics.is_empty()
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
        assert!(broker.owner.directory.lock().unwrap().topics.is_empty());
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
