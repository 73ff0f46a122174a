//! Announcing to other processes which users' logs have changed.
//!
//! A notification is sent by a transaction of its own, after the one that it is about: the server
//! commits transactions that notify one after the other. Changes within some milliseconds share one.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tidings_postgres::tokio_postgres::types::Type;
use tidings_postgres::{Connections, Error};
use tidings_reconnect::Trouble;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::store::message;
use crate::{UserId, Wake, WakeChannel, WakeSender};

/// Shortest time between two transactions that notify.
const PAUSE: Duration = Duration::from_millis(5);

/// Most users that one transaction names. Beyond that it says that any may have changed.
const MAX_USERS: usize = 1024;

const NOTIFY: &str = "SELECT count(pg_notify(tidings_notify_channel(), payload))
    FROM unnest($1::text[]) AS payload";

/// Takes note of what is to be announced. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Announcer {
    users: Arc<Mutex<BTreeSet<UserId>>>,
    /// Those who listen to this store and its clones.
    wakes: WakeSender,
    news: Arc<Notify>,
    sender: Arc<str>,
}

impl Announcer {
    pub(super) fn new(wakes: WakeSender) -> Self {
        Self {
            users: Arc::default(),
            wakes,
            news: Arc::default(),
            sender: message::sender().into(),
        }
    }

    /// Has users announced: to other processes, and here if several notifiers share the store. A single
    /// one knows what it has changed itself.
    pub(super) fn announce<'a>(&self, changed: impl IntoIterator<Item = &'a UserId>) {
        let is_shared = self.wakes.has_several_receivers();
        let mut users = self.lock();
        for user in changed {
            // One more than can be named means all of them.
            if users.len() > MAX_USERS {
                if is_shared {
                    self.wakes.send(Wake::Lost);
                }
                break;
            }
            if is_shared {
                self.wakes.send(Wake::Changed(user.clone()));
            }
            users.insert(user.clone());
        }
        drop(users);
        self.news.notify_one();
    }

    /// What its notifications begin with, so that it can ignore its own.
    pub(super) fn sender(&self) -> Arc<str> {
        Arc::clone(&self.sender)
    }

    /// Announces for as long as it is polled: over the channel if there is one, and by the database if
    /// that fails, or has not sent within the limit.
    pub(super) async fn run(
        self,
        connections: Arc<Connections>,
        channel: Option<Arc<dyn WakeChannel>>,
        limit: Duration,
    ) {
        let mut trouble = Trouble::new();
        loop {
            self.news.notified().await;
            let wakes = wakes(std::mem::take(&mut *self.lock()));
            let is_sent = match &channel {
                Some(channel) => send(&**channel, &wakes, limit, &mut trouble).await,
                None => false,
            };
            if !is_sent {
                let payloads = message::write(&self.sender, &wakes);
                match connections
                    .query(NOTIFY, &[(&payloads, Type::TEXT_ARRAY)])
                    .await
                {
                    Ok(_) => {}
                    Err(Error::Closed) => return,
                    Err(error) => {
                        // The sweeps of the others find the changes.
                        let error: &dyn std::error::Error = &error;
                        tracing::debug!(
                            error,
                            "failed to notify other processes of changed logs, which find them by polling"
                        );
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<UserId>> {
        // The set is whole after every statement, so a panic elsewhere leaves nothing half-done.
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wakes(users: BTreeSet<UserId>) -> Vec<Wake> {
    if users.len() > MAX_USERS {
        return vec![Wake::Lost];
    }
    users.into_iter().map(Wake::Changed).collect()
}

/// Sends over a channel, which may be code of the application: whatever it does, this returns whether it has sent.
async fn send(
    channel: &dyn WakeChannel,
    wakes: &[Wake],
    limit: Duration,
    trouble: &mut Trouble,
) -> bool {
    let sending = AssertUnwindSafe(async { channel.send(wakes).await }).catch_unwind();
    let failure = match timeout(limit, sending).await {
        Ok(Ok(Ok(()))) => {
            if trouble.worked() {
                tracing::info!("waking other processes over the channel works again");
            }
            return true;
        }
        Ok(Ok(Err(error))) => {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(error, "failed to wake other processes over the channel");
            return false;
        }
        Ok(Err(_panic)) => "panicked",
        Err(_elapsed) => "did not return in time",
    };
    if trouble.failed() {
        tracing::warn!(
            failure,
            "failed to wake other processes over the channel, notifying them by the database"
        );
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_users_than_can_be_named_are_all() {
        let users = |count| (0..count).map(|n: usize| UserId::new(n.to_string()).unwrap());
        assert_eq!(wakes(users(MAX_USERS).collect()).len(), MAX_USERS);
        assert_eq!(wakes(users(MAX_USERS + 1).collect()), [Wake::Lost]);
    }
}
