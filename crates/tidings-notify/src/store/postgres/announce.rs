//! Notifying other processes of the users whose logs have changed.
//!
//! A notification is sent by a transaction of its own, after the one that it is about: the server
//! commits transactions that notify one after the other. Changes within some milliseconds share one.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_postgres::tokio_postgres::types::Type;
use tidings_postgres::{Connections, Error};
use tokio::sync::Notify;

use crate::{UserId, Wake, WakeSender};

/// Shortest time between two transactions that notify.
const PAUSE: Duration = Duration::from_millis(5);

/// Longest notification, in bytes: PostgreSQL takes less than 8000.
const MAX_BYTES: usize = 7900;

/// Most users that one transaction names. Beyond that it says that any may have changed.
const MAX_USERS: usize = 1024;

/// What comes between the parts of a notification, and is in no name.
const SEPARATOR: char = '\n';

/// A notification that any log may have changed.
const ALL: &str = "*";

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
            sender: format!("{:016x}", crate::Epoch::random().as_u64()).into(),
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

    /// Announces for as long as it is polled.
    pub(super) async fn run(self, connections: Arc<Connections>) {
        loop {
            self.news.notified().await;
            let users = std::mem::take(&mut *self.lock());
            let payloads = payloads(&self.sender, &users);
            match connections
                .query(NOTIFY, &[(&payloads, Type::TEXT_ARRAY)])
                .await
            {
                Ok(_) => {}
                Err(Error::Closed) => return,
                Err(error) => {
                    // The sweeps of the others find the changes.
                    let error: &dyn std::error::Error = &error;
                    tracing::debug!(error, "failed to notify other processes");
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

/// The notifications for some users.
fn payloads(sender: &str, users: &BTreeSet<UserId>) -> Vec<String> {
    if users.len() > MAX_USERS {
        return vec![format!("{sender}{SEPARATOR}{ALL}")];
    }
    let mut payloads: Vec<String> = Vec::new();
    for user in users {
        let name = user.as_str();
        match payloads.last_mut() {
            Some(last) if last.len() + 1 + name.len() <= MAX_BYTES => {
                last.push(SEPARATOR);
                last.push_str(name);
            }
            _ => payloads.push(format!("{sender}{SEPARATOR}{name}")),
        }
    }
    payloads
}

/// Reads a notification. Those of the sender `own` are ignored, and so is text that is no notification.
pub(super) fn read(payload: &str, own: &str) -> Vec<Wake> {
    match payload.split_once(SEPARATOR) {
        None => Vec::new(),
        Some((sender, _)) if sender == own => Vec::new(),
        Some((_, ALL)) => vec![Wake::Lost],
        Some((_, names)) => {
            let users = names.split(SEPARATOR).map(UserId::stored);
            users.filter_map(Result::ok).map(Wake::Changed).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(count: usize, length: usize) -> BTreeSet<UserId> {
        (0..count)
            .map(|number| UserId::new(format!("{number:0length$}")).unwrap())
            .collect()
    }

    #[test]
    fn every_user_is_announced_in_notifications_that_fit() {
        for (count, length) in [(1, 1), (3, 255), (100, 255), (MAX_USERS, 10)] {
            let users = users(count, length);
            let mut announced = BTreeSet::new();
            for payload in payloads("me", &users) {
                assert!(payload.len() < 8000);
                assert_eq!(read(&payload, "me"), []);
                for wake in read(&payload, "you") {
                    match wake {
                        Wake::Changed(user) => announced.insert(user),
                        Wake::Lost => panic!("all of them have names"),
                    };
                }
            }
            assert_eq!(announced, users);
        }
    }

    #[test]
    fn what_cannot_be_named_means_all() {
        let many = payloads("me", &users(MAX_USERS + 1, 10));
        assert_eq!(many.len(), 1);
        assert_eq!(read(&many[0], "you"), [Wake::Lost]);
    }

    #[test]
    fn what_strangers_send_is_nothing() {
        assert_eq!(read("", "me"), []);
        assert_eq!(read("hello", "me"), []);
        assert_eq!(read("x\n", "me"), []);
    }
}
