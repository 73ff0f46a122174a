//! Storing events and waking the streams of their users.

mod builder;
mod routing;
mod sweep;

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc::{self, error::TrySendError};

use crate::event::to_microseconds;
use crate::instance::{Instance, Tasks};
use crate::subscription::Subscription;
use crate::telemetry::Metrics;
use crate::{
    Draft, Error, Event, InboxAction, InboxUpdate, MAX_DRAFTS, Presence, Since, Store, StoreError,
    UserId,
};

pub use builder::{
    DEFAULT_BUFFER_SIZE, DEFAULT_POLL_INTERVAL, InvalidOption, NotifierBuilder, OfflinePolicy,
};

/// Stores notifications and wakes the streams of their users, here and on other instances.
///
/// Clones share everything. When the last clone and the last stream are dropped, the background
/// tasks end; [`close`](Self::close) ends them in order.
///
/// The background tasks run on the runtime that the notifier was made on. When that ends, the notifier is closed: its
/// streams end, and calls from other runtimes return [`Error::Closed`]. A call of [`close`](Self::close) then stores
/// what the streams have [`sent`](Subscription::sent) last.
#[derive(Debug, Clone)]
pub struct Notifier {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    instance: Arc<Instance>,
    tasks: Arc<Tasks>,
    /// Takes the events that other instances should be sent.
    routes: Option<mpsc::Sender<Arc<Event>>>,
    /// Knows who is online, if offline users are skipped.
    skip_offline: Option<Arc<dyn Presence>>,
}

/// What [`Notifier::push_multi`] did for one user.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pushed {
    /// The event is stored, under this id.
    Stored(Event),
    /// The user is offline and such users are skipped: nothing was stored.
    Skipped(UserId),
}

const ONE_EVENT_EACH: StoreError = StoreError::ContractBroken {
    rule: "append returns one event for each draft",
};

impl Notifier {
    /// A notifier on a store, with default options.
    ///
    /// # Panics
    ///
    /// When called outside a tokio runtime with its timer enabled.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self::builder(store).start()
    }

    /// Returns a builder for a notifier on a store, to set its options.
    pub fn builder(store: Arc<dyn Store>) -> NotifierBuilder {
        NotifierBuilder::new(store)
    }

    /// Stores one notification and wakes the user's streams.
    ///
    /// Returns once the store has it, without waiting for streams and other instances.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after [`close`](Self::close), [`Error::Offline`] when the user is offline
    /// and such users are skipped, [`Error::Store`] when the store fails. Nothing is delivered that
    /// is not stored. [`Error::may_have_been_done`] says whether another push may store the event twice.
    ///
    /// # Cancel safety
    ///
    /// The event may or may not have been stored when the future is dropped. If it was, streams
    /// find it in the next sweep.
    pub async fn push(&self, draft: Draft) -> Result<Event, Error> {
        self.check_open()?;
        let online = self.online(std::slice::from_ref(&draft.user)).await;
        if online.is_some_and(|online| !online.contains(&draft.user)) {
            return Err(Error::Offline);
        }
        let mut events = self.append(vec![draft]).await?;
        self.announce(&events);
        events.pop().ok_or(ONE_EVENT_EACH.into())
    }

    /// Stores a notification for each of several users, for all of them or for none, and wakes
    /// their streams. Returns for each user what was done, in the order given; a user who is named
    /// twice gets the event once.
    ///
    /// There may be [`MAX_DRAFTS`] users, so that the pushes of others do not wait for long. A caller who has more
    /// makes several calls, and knows by their results which users have it.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after [`close`](Self::close), [`Error::Store`] with [`StoreError::TooMany`] for more users, and
    /// with another error when the store fails: then no user has got it, unless the error [may have been done](Error::may_have_been_done).
    ///
    /// # Cancel safety
    ///
    /// As for [`push`](Self::push).
    pub async fn push_multi(
        &self,
        users: impl IntoIterator<Item = UserId> + Send,
        draft: Draft,
    ) -> Result<Vec<Pushed>, Error> {
        self.check_open()?;
        let mut users: Vec<_> = users.into_iter().collect();
        let mut named = HashSet::with_capacity(users.len());
        users.retain(|user| named.insert(user.clone()));
        StoreError::check_count("users", users.len(), MAX_DRAFTS)?;
        let online = self.online(&users).await;
        let is_online = |user: &&UserId| online.as_ref().is_none_or(|it| it.contains(*user));
        let of_user = |user: &UserId| draft.clone().with_user(user.clone());
        let drafts = users.iter().filter(is_online).map(of_user).collect();
        let events = self.append(drafts).await?;
        self.announce(&events);
        // In the order of the drafts, and so of the users.
        let mut stored = events.into_iter().peekable();
        let outcome = |user| match stored.next_if(|event| event.user == user) {
            Some(event) => Pushed::Stored(event),
            None => Pushed::Skipped(user),
        };
        Ok(users.into_iter().map(outcome).collect())
    }

    /// Delivers events that are stored already, for instance by `sqlite::append_in` once its
    /// transaction is committed, to streams here and on other instances.
    ///
    /// Never waits. The sweep finds events that were not announced.
    pub fn announce(&self, events: &[Event]) {
        self.deliver(events);
        let Some(routes) = &self.inner.routes else {
            return;
        };
        for event in events {
            // After a close nothing is routed, and no event is lost by it.
            if let Err(TrySendError::Full(_)) = routes.try_send(Arc::new(event.clone())) {
                self.inner.instance.stats.routing_dropped();
            }
        }
    }

    /// Delivers events that are stored to streams on this instance: the receiving side of a
    /// [`Router`](crate::Router).
    ///
    /// The events may come in any order, and again. Never waits.
    pub fn deliver(&self, events: &[Event]) {
        for run in events.chunk_by(|one, next| one.user == next.user) {
            let Some(first) = run.first() else { continue };
            if let Some(channel) = self.inner.instance.hub.channel(&first.user) {
                let run: Vec<_> = run.iter().cloned().map(Arc::new).collect();
                channel.offer(&run);
                if run.iter().any(|event| event.key.is_some()) {
                    // Earlier events may have been archived: the streams get the counts.
                    self.inner.instance.hint(&first.user);
                }
            }
        }
    }

    /// Says that a user's log may have changed, wherever it was changed: for wake-ups that the
    /// application carries between instances itself.
    ///
    /// Never waits. If the user has streams here, one page of the log is read in the background for
    /// all of them. Hints may come again, and for users without streams.
    pub fn hint(&self, user: &UserId) {
        self.inner.instance.hint(user);
    }

    /// Says that any user's log may have changed, because wake-ups were lost: sweeps at once.
    pub fn hint_all(&self) {
        self.inner.instance.hints.sweep_soon();
    }

    /// Opens a stream of a user's events.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after [`close`](Self::close), [`Error::Store`] when the store fails.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn subscribe(&self, user: UserId, since: Since) -> Result<Subscription, Error> {
        let Inner {
            instance, tasks, ..
        } = &*self.inner;
        Subscription::open(instance.clone(), tasks.clone(), user, &since).await
    }

    /// Changes a user's inbox, and reports it to the user's streams: on this instance at once, on others by
    /// their next wake-up or sweep.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after [`close`](Self::close), [`Error::Store`] when the store fails.
    ///
    /// # Cancel safety
    ///
    /// The inbox may or may not have been changed when the future is dropped.
    pub async fn change(&self, user: &UserId, action: &InboxAction) -> Result<InboxUpdate, Error> {
        self.check_open()?;
        let at = to_microseconds(Timestamp::now());
        let instance = &self.inner.instance;
        let update = instance.store.change(user, action, at).await?;
        if update.changed > 0
            && let Some(channel) = instance.hub.channel(user)
        {
            channel.change(&update, at);
        }
        Ok(update)
    }

    /// The store, for the inbox and other direct calls.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.inner.instance.store
    }

    /// What this notifier has done so far.
    pub fn metrics(&self) -> Metrics {
        self.inner.instance.stats.snapshot()
    }

    /// Refuses new pushes and streams, ends the open streams once each has given what is known, and
    /// ends the background tasks. The store stays open.
    ///
    /// It does not wait for the streams, whose readers may be slow. Closing again is harmless: after
    /// the streams have ended, a second call stores what they have [`sent`](Subscription::sent)
    /// since.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when it could not be stored which events were sent.
    ///
    /// # Cancel safety
    ///
    /// The notifier is closed as soon as the future is first polled. Dropping it leaves the marks,
    /// which the next call stores.
    pub async fn close(&self) -> Result<(), Error> {
        let Inner {
            instance, tasks, ..
        } = &*self.inner;
        instance.close();
        tasks.stop().await;
        instance.delivered.flush(&*instance.store).await?;
        Ok(())
    }

    async fn append(&self, drafts: Vec<Draft>) -> Result<Vec<Event>, StoreError> {
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        let expected = drafts.len();
        let events = self.inner.instance.store.append(drafts).await?;
        if events.len() == expected {
            Ok(events)
        } else {
            Err(ONE_EVENT_EACH)
        }
    }

    /// Which of the users should get an event; `None` is all of them.
    async fn online(&self, users: &[UserId]) -> Option<HashSet<UserId>> {
        let presence = self.inner.skip_offline.as_ref()?;
        match presence.online_users(users).await {
            Ok(online) => Some(online.into_iter().collect()),
            Err(error) => {
                // An event too many is better than a lost one.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "failed to look up presence, so no user is skipped"
                );
                None
            }
        }
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.inner.instance.closed.is_cancelled() {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }
}
