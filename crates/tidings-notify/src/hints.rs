//! Users whose logs are said to have changed, and the tasks that look.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::instance::Instance;
use crate::{StoreError, UserId, Wake, Wakes};

/// Logs that are read at a time, so that a slow read does not delay the others.
pub(crate) const HINT_READERS: usize = 8;

/// What is to be looked at: each user once, however many hints there are, and only users with open
/// streams.
#[derive(Debug, Default)]
pub(crate) struct Hints {
    queue: Mutex<Queue>,
    work: Notify,
    /// Asks for a sweep at once.
    sweep: Notify,
    /// Whether the next sweep is to look at all logs.
    is_all_wanted: AtomicBool,
}

#[derive(Debug, Default)]
struct Queue {
    users: VecDeque<UserId>,
    queued: HashSet<UserId>,
}

impl Hints {
    fn add(&self, user: &UserId) {
        let mut queue = self.queue();
        if queue.queued.insert(user.clone()) {
            queue.users.push_back(user.clone());
            drop(queue);
            self.work.notify_one();
        }
    }

    /// Asks for a sweep at once.
    pub(crate) fn sweep_soon(&self) {
        self.sweep.notify_one();
    }

    /// Asks for a sweep at once that looks at all logs, whatever has changed.
    fn look_at_all_soon(&self) {
        self.is_all_wanted.store(true, Ordering::Release);
        self.sweep_soon();
    }

    /// Whether a sweep of all logs was asked for since the last call.
    pub(crate) fn take_all_wanted(&self) -> bool {
        self.is_all_wanted.swap(false, Ordering::AcqRel)
    }

    /// Waits until a sweep was asked for.
    pub(crate) async fn sweep_wanted(&self) {
        self.sweep.notified().await;
    }

    async fn next(&self) -> UserId {
        loop {
            if let Some(user) = self.take() {
                return user;
            }
            self.work.notified().await;
        }
    }

    fn take(&self) -> Option<UserId> {
        let mut queue = self.queue();
        let user = queue.users.pop_front()?;
        // A hint that comes from now on is about something that the read may not see.
        queue.queued.remove(&user);
        let more = !queue.users.is_empty();
        drop(queue);
        if more {
            self.work.notify_one();
        }
        Some(user)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing in here panics half-way through a change.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Instance {
    /// Has a user's log looked at soon, if the user has streams here.
    pub(crate) fn hint(&self, user: &UserId) {
        if self.hub.channel(user).is_some() {
            self.hints.add(user);
        }
    }

    /// Reads what is new in a user's log, once for all of the user's streams, and wakes them.
    pub(crate) async fn refresh(&self, user: &UserId) -> Result<(), StoreError> {
        let Some(channel) = self.hub.channel(user) else {
            return Ok(());
        };
        let asked = channel.asked();
        let after = asked.position.top_seq;
        let page = self.store.read(user, after, self.page_size).await?;
        channel.take_in(page, asked);
        Ok(())
    }
}

/// Looks at the logs that hints name. A log that cannot be read is left to the sweep.
pub(crate) async fn read(instance: &Instance) {
    loop {
        let user = instance.hints.next().await;
        match instance.refresh(&user).await {
            Ok(()) => {}
            Err(StoreError::Closed) => return,
            Err(error) => tracing::debug!(
                error = &error as &dyn std::error::Error,
                user = %user,
                "failed to read a log after a wake-up, which is left to the sweep"
            ),
        }
    }
}

/// Passes on the wake-ups of the store, until it sends no more.
pub(crate) async fn listen(instance: &Instance, mut wakes: Wakes) {
    while let Some(wake) = wakes.next().await {
        match wake {
            Wake::Changed(user) => instance.hint(&user),
            Wake::Lost => instance.hints.sweep_soon(),
            Wake::Reconnected => instance.hints.look_at_all_soon(),
        }
    }
}
