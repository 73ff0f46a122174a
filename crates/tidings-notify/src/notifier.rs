//! The front door: storing events and telling streams.

mod builder;

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::delivered::Delivered;
use crate::event::to_microseconds;
use crate::hub::Hub;
use crate::presence::{DynPresence, Presence};
use crate::read::{ReadScope, ReadUpdate};
use crate::store::Store;
use crate::subscription::Subscription;
use crate::telemetry::{Metrics, Stats};
use crate::{Draft, DynStore, Error, Event, Since, StoreError, UserId};

pub use builder::{DEFAULT_BUFFER_SIZE, DEFAULT_POLL_INTERVAL, NotifierBuilder, OfflinePolicy};

/// Stores notifications and tells the streams of their users, here and on other instances.
///
/// Clones share everything. When the last clone and the last stream are dropped, the background
/// tasks end; [`close`](Self::close) ends them in order.
#[derive(Debug, Clone)]
pub struct Notifier {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    tasks: Arc<Tasks>,
    /// Where events go that other instances should hear of.
    routes: Option<mpsc::Sender<Arc<Event>>>,
    /// Asked for who is online when offline users are skipped.
    skip_offline: Option<DynPresence>,
    closed: CancellationToken,
}

/// What the notifier, its streams and its tasks share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) store: DynStore,
    pub(crate) hub: Hub,
    pub(crate) delivered: Delivered,
    pub(crate) stats: Stats,
    /// Events that a stream reads from the store at a time, at least.
    pub(crate) page_size: usize,
}

/// The background tasks. They end when the notifier and all its streams are gone.
#[derive(Debug)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.stop.cancel();
    }
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
    rule: "append answers one event for each draft",
};

impl Notifier {
    /// Begins to build a notifier on a store.
    pub fn builder(store: impl Store) -> NotifierBuilder {
        NotifierBuilder::new(DynStore::new(store))
    }

    /// Stores one notification and tells the user's streams.
    ///
    /// Answers once the store has it; streams and other instances are told without being waited
    /// for.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after [`close`](Self::close), [`Error::Offline`] when the user is offline
    /// and such users are skipped, [`Error::Store`] when the store fails. Nothing is delivered that
    /// is not stored.
    ///
    /// # Cancel safety
    ///
    /// The event may or may not have been stored when the future is dropped. If it was, streams
    /// find it in the next sweep.
    pub async fn push(&self, draft: Draft) -> Result<Event, Error> {
        self.check_open()?;
        if self.online(vec![draft.user.clone()]).await.is_empty() {
            return Err(Error::Offline);
        }
        let mut events = self.append(vec![draft]).await?;
        self.announce(&events);
        events.pop().ok_or(ONE_EVENT_EACH.into())
    }

    /// Stores a notification for each of several users, for all of them or for none, and tells
    /// their streams. Tells for each user what was done, in the order given; a user who is named
    /// twice gets the event once.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after [`close`](Self::close), [`Error::Store`] when the store fails: then
    /// no user has got it.
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
        let mut named = HashSet::new();
        let users: Vec<_> = users
            .into_iter()
            .filter(|user| named.insert(user.clone()))
            .collect();
        let online = self.online(users.clone()).await;
        let drafts = online
            .iter()
            .map(|user| draft.clone().with_user(user.clone()))
            .collect();
        let events = self.append(drafts).await?;
        self.announce(&events);
        let mut events = events.into_iter().peekable();
        let outcomes =
            users
                .into_iter()
                .map(|user| match events.next_if(|event| event.user == user) {
                    Some(event) => Pushed::Stored(event),
                    None => Pushed::Skipped(user),
                });
        Ok(outcomes.collect())
    }

    /// Tells streams, here and on other instances, of events that are stored already: by
    /// `sqlite::append_in`, say, once its transaction is committed.
    ///
    /// Never waits. What is left out, the sweep finds.
    pub fn announce(&self, events: &[Event]) {
        self.deliver(events);
        let Some(routes) = &self.inner.routes else {
            return;
        };
        for event in events {
            // After a close there is nobody to route, and nothing is lost by it.
            if let Err(TrySendError::Full(_)) = routes.try_send(Arc::new(event.clone())) {
                self.inner.shared.stats.routing_dropped();
            }
        }
    }

    /// Tells streams on this instance of events that are stored: the receiving side of a
    /// [`Router`](crate::Router).
    ///
    /// The events may come in any order, and again. Never waits.
    pub fn deliver(&self, events: &[Event]) {
        for run in events.chunk_by(|one, next| one.user == next.user) {
            let Some(first) = run.first() else { continue };
            if let Some(channel) = self.inner.shared.hub.channel(&first.user) {
                let run: Vec<_> = run.iter().cloned().map(Arc::new).collect();
                channel.offer(&run);
            }
        }
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
        let Inner { shared, tasks, .. } = &*self.inner;
        Subscription::open(shared.clone(), tasks.clone(), user, &since).await
    }

    /// Marks events of a user as read, and tells the user's streams: on this instance at once, on
    /// others by their next sweep.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after [`close`](Self::close), [`Error::Store`] when the store fails.
    ///
    /// # Cancel safety
    ///
    /// The events may or may not have been marked when the future is dropped.
    pub async fn mark_read(&self, user: &UserId, scope: &ReadScope) -> Result<ReadUpdate, Error> {
        self.check_open()?;
        let at = to_microseconds(Timestamp::now());
        let shared = &self.inner.shared;
        let update = shared.store.mark_read(user, scope, at).await?;
        if update.changed > 0
            && let Some(channel) = shared.hub.channel(user)
        {
            channel.read(&update, at);
        }
        Ok(update)
    }

    /// The store, for the inbox and whatever else is asked of it directly.
    pub fn store(&self) -> &DynStore {
        &self.inner.shared.store
    }

    /// What this notifier has done so far.
    pub fn metrics(&self) -> Metrics {
        self.inner.shared.stats.snapshot()
    }

    /// Refuses new pushes and streams, ends the open streams once each has given what is known, and
    /// ends the background tasks. The store stays open.
    ///
    /// It does not wait for the streams, whose readers may be slow. Closing again is harmless, and
    /// once they have ended it stores what they have [`sent`](Subscription::sent) since.
    ///
    /// # Errors
    ///
    /// [`Error::Store`] when the delivery marks could not be stored.
    ///
    /// # Cancel safety
    ///
    /// The notifier is closed as soon as the future is first polled. Dropping it leaves the marks,
    /// which the next call stores.
    pub async fn close(&self) -> Result<(), Error> {
        let Inner {
            shared,
            tasks,
            closed,
            ..
        } = &*self.inner;
        closed.cancel();
        shared.hub.close();
        tasks.stop.cancel();
        tasks.tracker.close();
        tasks.tracker.wait().await;
        shared.delivered.flush(&shared.store).await?;
        Ok(())
    }

    async fn append(&self, drafts: Vec<Draft>) -> Result<Vec<Event>, StoreError> {
        if drafts.is_empty() {
            return Ok(Vec::new());
        }
        let expected = drafts.len();
        let events = self.inner.shared.store.append(drafts).await?;
        if events.len() == expected {
            Ok(events)
        } else {
            Err(ONE_EVENT_EACH)
        }
    }

    /// Those of the users who should get an event, in the same order.
    async fn online(&self, users: Vec<UserId>) -> Vec<UserId> {
        let Some(presence) = &self.inner.skip_offline else {
            return users;
        };
        match presence.online_users(&users).await {
            Ok(online) => online,
            Err(error) => {
                // Better one event too many than one that nobody knows of.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "presence is not known, and nobody is skipped"
                );
                users
            }
        }
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.inner.closed.is_cancelled() {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }
}
