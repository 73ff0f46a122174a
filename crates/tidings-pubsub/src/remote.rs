//! What brokers over a network share: who has which topic here, what of it the server knows, and
//! who has to be told when the connection was broken.
//!
//! Subscriptions change the wish, a [`session`] makes the server follow it. Neither waits for the
//! other but through here.

pub(crate) mod session;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::sync::{Notify, oneshot};

use crate::directory::Directory;
use crate::{Error, Mailbox, Membership, Message, Options, Subscription, Topic};

/// The subscriptions of one broker over a network.
#[derive(Debug, Default)]
pub(crate) struct Remote {
    state: Mutex<State>,
    /// Told when there is a change that the server does not know.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    directory: Directory,
    /// Which session may deliver.
    session: u64,
    /// What the server sends us, by its own word.
    live: HashSet<Topic>,
    /// Where that may differ from what the directory has.
    changed: HashSet<Topic>,
    /// What the server would not let us have; asked for again from time to time.
    refused: HashSet<Topic>,
    /// What was live when the connection broke. Its subscribers have to be told once it is again.
    interrupted: HashSet<Topic>,
    /// Who waits for a topic to be live.
    waiting: HashMap<Topic, Vec<Answer>>,
}

type Answer = oneshot::Sender<Result<(), Error>>;

/// What the server has to be told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) join: Vec<Topic>,
    pub(crate) leave: Vec<Topic>,
}

impl Remote {
    /// Makes a subscription, once all of its topics are live.
    pub(crate) async fn subscribe(
        self: &Arc<Self>,
        topics: Vec<Topic>,
        options: Options,
    ) -> Result<Subscription, Error> {
        let mailbox = Mailbox::new(options);
        let number = self.lock()?.directory.add(&mailbox);
        let member = Member {
            remote: Arc::clone(self),
            number,
            mailbox: mailbox.clone(),
            topics: Mutex::default(),
        };
        // All at once: the server is asked once.
        try_join_all(topics.iter().map(|topic| member.join(topic))).await?;
        Ok(Subscription::new(mailbox, member))
    }

    /// Fails once the broker is closed.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        self.lock().map(drop)
    }

    /// Ends all subscriptions and answers all who wait.
    pub(crate) fn close(&self) {
        let mut state = self.lock_even_closed();
        state.closed = true;
        let State {
            directory, waiting, ..
        } = std::mem::take(&mut *state);
        state.closed = true;
        drop(state);
        directory.close();
        // Dropping their senders tells those who wait.
        drop(waiting);
    }

    /// Waits until somebody has a topic.
    pub(crate) async fn wanted(&self) {
        loop {
            // A change in between leaves its permit: there is one session to take it.
            if self.lock_even_closed().directory.topics().next().is_some() {
                return;
            }
            self.changed.notified().await;
        }
    }

    /// Waits until [`take_changes`](Self::take_changes) may have something to tell.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Begins a session, which has everything to learn, and ends the one before: what that one still
    /// delivers is dropped.
    pub(crate) fn begin(&self) -> u64 {
        let mut state = self.lock_even_closed();
        state.session += 1;
        state.lose_connection();
        state.session
    }

    /// Ends the session. What it delivers from now on is dropped.
    pub(crate) fn end(&self) {
        self.begin();
    }

    /// What the server does not know yet. A topic to be left is not live from now on.
    pub(crate) fn take_changes(&self) -> Changes {
        let mut changes = Changes::default();
        let mut answers = Vec::new();
        let mut state = self.lock_even_closed();
        for topic in std::mem::take(&mut state.changed) {
            if state.directory.has(&topic) {
                if !state.live.contains(&topic) {
                    changes.join.push(topic);
                }
                continue;
            }
            // Whoever still waits for it has given it up in the meantime.
            answers.extend(state.waiting.remove(&topic).unwrap_or_default());
            state.interrupted.remove(&topic);
            state.refused.remove(&topic);
            if state.live.remove(&topic) {
                changes.leave.push(topic);
            }
        }
        drop(state);
        for answer in answers {
            let _gone = answer.send(Ok(()));
        }
        changes
    }

    /// The server sends these topics from now on.
    pub(crate) fn confirm(&self, topics: &[Topic]) {
        let mut mailboxes = HashMap::new();
        let mut answers = Vec::new();
        let mut state = self.lock_even_closed();
        for topic in topics {
            state.live.insert(topic.clone());
            state.refused.remove(topic);
            answers.extend(state.waiting.remove(topic).unwrap_or_default());
            match state.directory.find(topic.as_str()) {
                Some((_, found)) if state.interrupted.remove(topic) => {
                    mailboxes.extend(found.iter().map(|(number, it)| (*number, it.clone())));
                }
                Some(_) => {}
                None => {
                    // Its last subscription left while it was being asked for.
                    state.changed.insert(topic.clone());
                    self.changed.notify_one();
                }
            }
        }
        drop(state);
        // Before anybody hears that the topic is live again.
        mailboxes.values().for_each(Mailbox::interrupted);
        for answer in answers {
            let _gone = answer.send(Ok(()));
        }
    }

    /// The server will not send this topic.
    pub(crate) fn refuse(&self, topic: &Topic, error: &Error) {
        let mut state = self.lock_even_closed();
        state.refused.insert(topic.clone());
        let answers = state.waiting.remove(topic);
        drop(state);
        for answer in answers.into_iter().flatten() {
            let _gone = answer.send(Err(error.clone()));
        }
    }

    /// Asks for what was refused again.
    pub(crate) fn retry_refused(&self) {
        let mut state = self.lock_even_closed();
        let refused = std::mem::take(&mut state.refused);
        if !refused.is_empty() {
            state.changed.extend(refused);
            self.changed.notify_one();
        }
    }

    /// There is no connection: nobody who waits will get a topic.
    pub(crate) fn refuse_all(&self, error: &Error) {
        let waiting = std::mem::take(&mut self.lock_even_closed().waiting);
        for answer in waiting.into_values().flatten() {
            let _gone = answer.send(Err(error.clone()));
        }
    }

    /// Gives everyone who has the topic a copy. Waits for nobody.
    pub(crate) fn deliver(&self, session: u64, topic: &str, payload: Bytes) {
        let mut state = self.lock_even_closed();
        if state.session != session {
            return;
        }
        let Some((topic, mailboxes)) = state.directory.find(topic) else {
            return;
        };
        // The server can be faster with messages than with its word that it sends them.
        let interrupted = state.interrupted.remove(&topic);
        drop(state);
        let message = Message::new(topic, payload);
        for mailbox in mailboxes.values() {
            if interrupted {
                mailbox.interrupted();
            }
            mailbox.post(message.clone());
        }
    }

    /// Tells everyone who has the topic that a message of it is lost.
    #[cfg(feature = "postgres")]
    pub(crate) fn lose(&self, session: u64, topic: &str) {
        let state = self.lock_even_closed();
        if state.session != session {
            return;
        }
        let found = state.directory.find(topic);
        drop(state);
        if let Some((_, mailboxes)) = found {
            mailboxes.values().for_each(Mailbox::interrupted);
        }
    }

    /// Whether anybody has the topic.
    #[cfg(feature = "postgres")]
    pub(crate) fn has(&self, topic: &str) -> bool {
        self.lock_even_closed().directory.find(topic).is_some()
    }

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
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lose_connection(&mut self) {
        let live = std::mem::take(&mut self.live);
        self.interrupted.extend(live);
        self.interrupted.retain(|topic| self.directory.has(topic));
        self.refused.clear();
        self.changed = self.directory.topics().cloned().collect();
    }
}

/// One subscription's place.
#[derive(Debug)]
struct Member {
    remote: Arc<Remote>,
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

    /// Enters the directory; when the topic is not live, answers what tells that it is.
    fn enter(&self, topic: &Topic) -> Result<Option<Entering>, Error> {
        let mut topics = self.topics();
        let mut state = self.remote.lock()?;
        let is_new = topics.insert(topic.clone());
        state.directory.enter(topic, self.number, &self.mailbox);
        if state.live.contains(topic) {
            return Ok(None);
        }
        let (answer, answered) = oneshot::channel();
        let waiting = state.waiting.entry(topic.clone()).or_default();
        // Those who gave up do not pile up while there is no connection.
        waiting.retain(|answer| !answer.is_closed());
        waiting.push(answer);
        state.changed.insert(topic.clone());
        self.remote.changed.notify_one();
        Ok(Some(Entering { is_new, answered }))
    }

    fn exit(&self, topic: &Topic) -> Result<(), Error> {
        let mut topics = self.topics();
        let mut state = self.remote.lock()?;
        if topics.remove(topic) {
            state.directory.leave(topic, self.number);
            state.changed.insert(topic.clone());
            self.remote.changed.notify_one();
        }
        Ok(())
    }
}

/// A topic that is not live yet.
struct Entering {
    is_new: bool,
    answered: oneshot::Receiver<Result<(), Error>>,
}

impl Membership for Member {
    async fn join(&self, topic: &Topic) -> Result<(), Error> {
        let Some(entering) = self.enter(topic)? else {
            return Ok(());
        };
        let answer = entering.answered.await.unwrap_or(Err(Error::Closed));
        if answer.is_err() && entering.is_new {
            self.exit(topic)?;
        }
        answer
    }

    async fn leave(&self, topic: &Topic) -> Result<(), Error> {
        self.exit(topic)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let topics = std::mem::take(&mut *self.topics());
        let mut state = self.remote.lock_even_closed();
        state.directory.remove(self.number, &topics);
        if !topics.is_empty() && !state.closed {
            state.changed.extend(topics);
            self.remote.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
