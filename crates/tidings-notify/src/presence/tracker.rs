//! One instance's part in presence.

mod grace;
mod keeper;
mod options;
mod registration;
mod roster;
mod watch;
mod watching;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::{Presence, PresenceError};
use crate::{RoutingInfo, UserId};
use keeper::Keeper;
use roster::{Replies, Roster};
use watching::Watching;

pub use options::{
    DEFAULT_GRACE, DEFAULT_LEASE_TTL, DEFAULT_WATCH_BUFFER, DEFAULT_WATCH_INTERVAL, TrackerOptions,
};
pub use registration::Registration;
pub use watch::{Watch, WatchItem};

/// Reports to a [`Presence`] which users have connections to this instance, and watches those of all
/// instances. Clones are the same tracker.
///
/// Dropping the last clone ends the heartbeat and closes the tracker: the users of this instance are offline
/// when its lease ends. [`close`](Self::close) ends it at once. The end of the runtime that it joined on closes it, too.
#[derive(Debug, Clone)]
pub struct Tracker {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    here: Arc<Here>,
    watching: Arc<Watching>,
    running: TaskTracker,
    _tasks: [AbortOnDropHandle<()>; 2],
}

/// The connections here, as registrations and the task that writes to the store share them.
#[derive(Debug)]
struct Here {
    /// `None` once the tracker was closed.
    roster: Mutex<Option<Roster>>,
    /// Notified when there is something to write.
    wake: Notify,
    closing: CancellationToken,
}

impl Here {
    fn lock(&self) -> MutexGuard<'_, Option<Roster>> {
        // The roster is whole after each of its changes.
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses the roster, and then replies to those who wait. Returns `None` when the tracker was closed.
    fn with<T>(&self, using: impl FnOnce(&mut Roster) -> T) -> Option<T> {
        let mut roster = self.lock();
        let used = using(roster.as_mut()?);
        let replies = roster.as_mut().map(Roster::take_replies);
        drop(roster);
        replies.into_iter().for_each(Replies::send);
        Some(used)
    }

    /// Changes the roster, and wakes the task that writes to the store. Returns `None` when the tracker was
    /// closed.
    fn change<T>(&self, change: impl FnOnce(&mut Roster) -> T) -> Option<T> {
        if self.closing.is_cancelled() {
            return None;
        }
        let changed = self.with(change)?;
        self.wake.notify_one();
        Some(changed)
    }

    /// Waits until the store has the connections of this user as they are now.
    async fn stored(&self, user: &UserId) -> Result<(), PresenceError> {
        let (waiter, outcome) = oneshot::channel();
        self.change(|roster| roster.wait(user, waiter))
            .ok_or(PresenceError::Closed)?;
        outcome.await.unwrap_or(Err(PresenceError::Closed))
    }
}

impl Tracker {
    /// Takes part in presence. `routing` is where the other instances find this one. The store hears of
    /// it with the first connection.
    ///
    /// # Errors
    ///
    /// [`PresenceError::InvalidOption`] when an option is outside its range.
    ///
    /// # Panics
    ///
    /// Outside of a Tokio runtime, which its tasks need.
    pub fn join(
        presence: Arc<dyn Presence>,
        routing: RoutingInfo,
        options: TrackerOptions,
    ) -> Result<Self, PresenceError> {
        options.check()?;
        let here = Arc::new(Here {
            roster: Mutex::new(Some(Roster::default())),
            wake: Notify::new(),
            closing: CancellationToken::new(),
        });
        let watching = Arc::new(Watching::new(Arc::clone(&presence), options.grace));
        let keeper = Keeper::new(presence, Arc::clone(&here), routing, options.ttl);
        let polling = {
            let (watching, closing) = (Arc::clone(&watching), here.closing.clone());
            async move { watching.run(options.watch_interval, &closing).await }
        };
        let running = TaskTracker::new();
        let tasks = [
            running.spawn(keeper.run().boxed()),
            running.spawn(polling.boxed()),
        ];
        running.close();
        Ok(Self {
            inner: Arc::new(Inner {
                here,
                watching,
                running,
                _tasks: tasks.map(AbortOnDropHandle::new),
            }),
        })
    }

    /// Registers a connection of a user, until the registration ends. It counts from now on, and the
    /// store gets it in the background, by several tries if need be; to wait for that, call
    /// [`Registration::stored`].
    ///
    /// # Errors
    ///
    /// [`PresenceError::Closed`] when the tracker was closed.
    pub fn register(&self, user: UserId) -> Result<Registration, PresenceError> {
        let here = &self.inner.here;
        here.change(|roster| roster.connect(&user))
            .ok_or(PresenceError::Closed)?;
        Ok(Registration::new(user, Arc::clone(here)))
    }

    /// Reports users of all instances who come online and go offline from now on.
    ///
    /// All watches of a tracker share one question to the store per
    /// [interval](TrackerOptions::with_watch_interval).
    ///
    /// # Errors
    ///
    /// [`PresenceError::Closed`] when the tracker or the store was closed,
    /// [`PresenceError::Backend`] when the store fails.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn watch(&self) -> Result<Watch, PresenceError> {
        self.watch_with_buffer(DEFAULT_WATCH_BUFFER).await
    }

    /// Reports as [`watch`](Self::watch) does, to a reader who may be this many items behind.
    ///
    /// # Errors
    ///
    /// Those of [`watch`](Self::watch).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves nothing behind.
    pub async fn watch_with_buffer(&self, items: usize) -> Result<Watch, PresenceError> {
        self.inner.watching.watch(items).await
    }

    /// Returns those of the users who are online as the watches of this tracker report it, in the order given:
    /// a user who went offline less than the [grace time](TrackerOptions::with_grace) ago is online.
    ///
    /// What a watch reports after this applies to it. [`Presence::online_users`] is another view: a user who is
    /// back within the grace time is not reported, and a reader that has asked in between would take the
    /// user to be offline.
    ///
    /// # Errors
    ///
    /// Those of [`watch`](Self::watch).
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing.
    pub async fn online_users(&self, users: &[UserId]) -> Result<Vec<UserId>, PresenceError> {
        self.inner.watching.online_users(users).await
    }

    /// Ends the registrations, the lease and the watches, and refuses later calls. Closing twice is
    /// harmless. Whether its own watches still report the users who go offline by this is not defined.
    ///
    /// # Errors
    ///
    /// [`PresenceError`] when the store could not be reached; then the lease ends by itself.
    ///
    /// # Cancel safety
    ///
    /// The tracker is closed when the future is dropped; the lease in the store may or may not have been ended.
    pub async fn close(&self) -> Result<(), PresenceError> {
        let Inner { here, running, .. } = &*self.inner;
        here.closing.cancel();
        running.wait().await;
        // Only the first call has a roster to take.
        let roster = here.lock().take();
        match roster {
            Some(roster) => roster.farewell(),
            None => Ok(()),
        }
    }
}
