//! What brokers over a network share: the topics that are wanted here, those that the server sends,
//! and the subscribers that must get a report after the connection broke.
//!
//! Subscriptions change what is wanted, and a [`session`] makes the server follow. They wait for each
//! other only through this module.

mod backlog;
pub(crate) mod session;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::sync::{Notify, oneshot};

use crate::broker::directory::{Directory, Recipients};
use crate::broker::interest::Interest;
use crate::broker::remote::backlog::{Backlog, Posting};
use crate::{Error, Mailbox, Membership, Message, Pattern, SubscribeOptions, Subscription, Topic};

/// The subscriptions of one broker over a network.
#[derive(Debug)]
pub(crate) struct Remote {
    patterns: Patterns,
    state: Mutex<State>,
    /// Notified when there is a change that the server does not know.
    changed: Notify,
    /// What has arrived. Put in while the state is locked, so that the order is that of arrival.
    backlog: Backlog,
}

/// Whether the server has subscriptions by pattern.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Patterns {
    #[cfg(any(test, feature = "redis"))]
    Supported,
    #[cfg(feature = "postgres")]
    Unsupported,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    directory: Directory,
    /// Which session may deliver.
    session: u64,
    /// What the server sends us, by its own word.
    live: HashSet<Interest>,
    /// Where that may differ from what the directory has.
    changed: HashSet<Interest>,
    /// What the server would not let us have; asked for again from time to time.
    refused: HashSet<Interest>,
    /// Of those, what has been logged and reported to subscribers.
    reported: HashSet<Interest>,
    /// What was live when the connection broke. Its subscribers get a report once it is live again.
    interrupted: HashSet<Interest>,
    /// The callers that wait until an interest is live.
    waiting: HashMap<Interest, Vec<Reply>>,
}

type Reply = oneshot::Sender<Result<(), Error>>;

/// What to subscribe to and to unsubscribe from at the server.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) join: Vec<Interest>,
    pub(crate) leave: Vec<Interest>,
}

impl Remote {
    pub(crate) fn new(patterns: Patterns) -> Self {
        Self {
            patterns,
            state: Mutex::default(),
            changed: Notify::new(),
            backlog: Backlog::default(),
        }
    }

    /// Makes a subscription, once all of its topics are live.
    pub(crate) async fn subscribe(
        self: &Arc<Self>,
        topics: Vec<Topic>,
        options: SubscribeOptions,
    ) -> Result<Subscription, Error> {
        let mailbox = Mailbox::new(options);
        let number = self.lock()?.directory.add(&mailbox);
        let member = Member {
            remote: Arc::clone(self),
            number,
            mailbox: mailbox.clone(),
            interests: Mutex::default(),
        };
        // All at once: the server is asked once.
        try_join_all(topics.iter().map(|topic| member.want(topic.into()))).await?;
        Ok(Subscription::new(mailbox, member))
    }

    /// Fails once the broker is closed.
    pub(crate) fn check_open(&self) -> Result<(), Error> {
        self.lock().map(drop)
    }

    /// Ends all subscriptions, and replies to all waiting callers.
    pub(crate) fn close(&self) {
        let mut state = self.lock_even_closed();
        state.closed = true;
        let State {
            directory, waiting, ..
        } = std::mem::take(&mut *state);
        state.closed = true;
        drop(state);
        directory.close();
        // Dropping the senders ends the waits.
        drop(waiting);
    }

    /// Waits until something is wanted.
    pub(crate) async fn wanted(&self) {
        loop {
            // A change in between leaves its permit: there is one session to take it.
            if !self.lock_even_closed().directory.wants_nothing() {
                return;
            }
            self.changed.notified().await;
        }
    }

    /// Waits until [`take_changes`](Self::take_changes) may return changes.
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

    /// What the server does not know yet. What is to be left is not live from now on.
    pub(crate) fn take_changes(&self) -> Changes {
        let mut changes = Changes::default();
        let mut replies = Vec::new();
        let mut state = self.lock_even_closed();
        for interest in std::mem::take(&mut state.changed) {
            if state.directory.has(&interest) {
                if !state.live.contains(&interest) {
                    changes.join.push(interest);
                }
                continue;
            }
            // A caller that waited for it has given it up in the meantime.
            replies.extend(state.waiting.remove(&interest).unwrap_or_default());
            state.interrupted.remove(&interest);
            state.refused.remove(&interest);
            state.reported.remove(&interest);
            if state.live.remove(&interest) {
                changes.leave.push(interest);
            }
        }
        drop(state);
        for reply in replies {
            let _gone = reply.send(Ok(()));
        }
        changes
    }

    /// The server sends these from now on.
    pub(crate) fn confirm(&self, interests: &[Interest]) {
        let mut back = Vec::new();
        let mut replies = Vec::new();
        let mut state = self.lock_even_closed();
        for interest in interests {
            state.live.insert(interest.clone());
            state.refused.remove(interest);
            state.reported.remove(interest);
            replies.extend(state.waiting.remove(interest).unwrap_or_default());
            if !state.directory.has(interest) {
                // Its last subscription left while it was being asked for.
                state.changed.insert(interest.clone());
                self.changed.notify_one();
            } else if state.interrupted.remove(interest) {
                back.push(interest);
            }
        }
        let members = state.directory.members(back);
        // Before it is reported as live again.
        self.hand_over(state, members, None);
        for reply in replies {
            let _gone = reply.send(Ok(()));
        }
    }

    /// The server refuses to send this. Subscribers that had it before a break get a report that they
    /// miss messages, and another when it is live again. Returns `true` the first time.
    pub(crate) fn refuse(&self, interest: &Interest, error: &Error) -> bool {
        let mut state = self.lock_even_closed();
        state.refused.insert(interest.clone());
        let is_new = state.reported.insert(interest.clone());
        let replies = state.waiting.remove(interest);
        let is_missed = is_new && state.interrupted.contains(interest);
        let members = state.directory.members(is_missed.then_some(interest));
        self.hand_over(state, members, None);
        for reply in replies.into_iter().flatten() {
            let _gone = reply.send(Err(error.clone()));
        }
        is_new
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

    /// There is no connection: no waiting call will get anything.
    pub(crate) fn refuse_all(&self, error: &Error) {
        let waiting = std::mem::take(&mut self.lock_even_closed().waiting);
        for reply in waiting.into_values().flatten() {
            let _gone = reply.send(Err(error.clone()));
        }
    }

    /// Gives everyone who wants it a copy of a message, or lets [`make_postings`](Self::make_postings)
    /// do so. Never waits.
    ///
    /// Messages can arrive before the reply that confirms their subscription; `is_live` returns
    /// whether the server sends an interest by now.
    pub(crate) fn deliver(
        &self,
        session: u64,
        topic: &str,
        payload: Bytes,
        is_live: impl Fn(&Interest) -> bool,
    ) {
        let mut state = self.lock_even_closed();
        if state.session != session {
            return;
        }
        let Some(topic) = state.directory.topic(topic) else {
            return;
        };
        let recipients = state.directory.recipients(topic.as_str());
        let interrupted = state.take_interrupted(topic.as_str(), is_live);
        let message = Message::new(topic, payload);
        self.hand_over(state, interrupted, Some((message, recipients)));
    }

    /// Makes those postings that are too large for the caller that brings them, for as long as it is polled.
    pub(crate) async fn make_postings(self: Arc<Self>) {
        self.backlog.serve().await;
    }

    fn hand_over(
        &self,
        state: MutexGuard<'_, State>,
        interrupted: Recipients,
        message: Option<(Message, Recipients)>,
    ) {
        let posting = Posting {
            interrupted,
            message,
        };
        let by = self.backlog.put(posting);
        drop(state);
        self.backlog.proceed(by);
    }

    /// Reports to all subscriptions of the topic that a message is lost.
    #[cfg(feature = "postgres")]
    pub(crate) fn lose(&self, session: u64, topic: &str) {
        let state = self.lock_even_closed();
        if state.session != session {
            return;
        }
        let recipients = state.directory.recipients(topic);
        self.hand_over(state, recipients, None);
    }

    /// Whether a subscription wants the topic's messages.
    #[cfg(feature = "postgres")]
    pub(crate) fn has(&self, topic: &str) -> bool {
        self.lock_even_closed().directory.topic(topic).is_some()
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
        self.interrupted.retain(|it| self.directory.has(it));
        self.refused.clear();
        self.changed = self.directory.interests().collect();
    }

    /// The subscribers that must get a report of the break before a message of this topic. Those with
    /// another interest that is not live yet get a second report later, because they can miss more
    /// messages until then.
    fn take_interrupted(&mut self, topic: &str, is_live: impl Fn(&Interest) -> bool) -> Recipients {
        let concerned = self.interrupted.iter().filter(|it| it.includes(topic));
        let concerned: Vec<Interest> = concerned.cloned().collect();
        for interest in concerned.iter().filter(|it| is_live(it)) {
            self.interrupted.remove(interest);
            // Before its word has come, so that the next break is reported as well.
            self.live.insert(interest.clone());
        }
        self.directory.members(&concerned)
    }
}

/// One subscription's place.
#[derive(Debug)]
struct Member {
    remote: Arc<Remote>,
    number: u64,
    mailbox: Mailbox,
    /// What the directory has of it, each with the number of its entry. Locked before the directory.
    interests: Mutex<Interests>,
}

#[derive(Debug, Default)]
struct Interests {
    entered: HashMap<Interest, u64>,
    last_entry: u64,
}

impl Member {
    fn interests(&self) -> MutexGuard<'_, Interests> {
        // Nothing that can panic runs under the lock.
        self.interests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    async fn want(&self, interest: Interest) -> Result<(), Error> {
        let Some(entering) = self.enter(&interest)? else {
            return Ok(());
        };
        let reply = entering.replied.await.unwrap_or(Err(Error::Closed));
        if let (Err(_), Some(entry)) = (&reply, entering.new_entry) {
            // Unless it has been given up and asked for again in the meantime.
            self.exit(&interest, |current| current == entry)?;
        }
        reply
    }

    /// Enters the directory. If the interest is not live, returns what resolves once it is.
    fn enter(&self, interest: &Interest) -> Result<Option<Entering>, Error> {
        let mut interests = self.interests();
        let mut state = self.remote.lock()?;
        let new_entry = interests.enter(interest);
        state.directory.enter(interest, self.number, &self.mailbox);
        if state.live.contains(interest) {
            return Ok(None);
        }
        let (reply, replied) = oneshot::channel();
        let waiting = state.waiting.entry(interest.clone()).or_default();
        // Those who gave up do not pile up while there is no connection.
        waiting.retain(|reply| !reply.is_closed());
        waiting.push(reply);
        state.changed.insert(interest.clone());
        self.remote.changed.notify_one();
        Ok(Some(Entering { new_entry, replied }))
    }

    fn exit(&self, interest: &Interest, is_meant: impl Fn(u64) -> bool) -> Result<(), Error> {
        let mut interests = self.interests();
        let mut state = self.remote.lock()?;
        if interests.exit(interest, is_meant) {
            state.directory.leave(interest, self.number);
            state.changed.insert(interest.clone());
            self.remote.changed.notify_one();
        }
        Ok(())
    }

    fn check_patterns(&self) -> Result<(), Error> {
        self.remote.check_open()?;
        match self.remote.patterns {
            #[cfg(any(test, feature = "redis"))]
            Patterns::Supported => Ok(()),
            #[cfg(feature = "postgres")]
            Patterns::Unsupported => Err(Error::NoPatterns),
        }
    }
}

impl Interests {
    /// The number of the entry, if it is a new one.
    fn enter(&mut self, interest: &Interest) -> Option<u64> {
        if self.entered.contains_key(interest) {
            return None;
        }
        self.last_entry += 1;
        self.entered.insert(interest.clone(), self.last_entry);
        Some(self.last_entry)
    }

    fn exit(&mut self, interest: &Interest, is_meant: impl Fn(u64) -> bool) -> bool {
        let entry = self.entered.get(interest);
        entry.is_some_and(|entry| is_meant(*entry)) && self.entered.remove(interest).is_some()
    }
}

/// What is not live yet.
struct Entering {
    new_entry: Option<u64>,
    replied: oneshot::Receiver<Result<(), Error>>,
}

#[async_trait]
impl Membership for Member {
    async fn join(&self, topic: &Topic) -> Result<(), Error> {
        self.want(topic.into()).await
    }

    async fn leave(&self, topic: &Topic) -> Result<(), Error> {
        self.exit(&topic.into(), |_| true)
    }

    async fn join_pattern(&self, pattern: &Pattern) -> Result<(), Error> {
        self.check_patterns()?;
        self.want(pattern.into()).await
    }

    async fn leave_pattern(&self, pattern: &Pattern) -> Result<(), Error> {
        self.check_patterns()?;
        self.exit(&pattern.into(), |_| true)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let entered = std::mem::take(&mut self.interests().entered);
        let mut state = self.remote.lock_even_closed();
        state.directory.remove(self.number, entered.keys());
        if !entered.is_empty() && !state.closed {
            state.changed.extend(entered.into_keys());
            self.remote.changed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
