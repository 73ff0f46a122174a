//! The limits of a running server: how much callers may ask for and users get, and how much may be open. They can be
//! changed.
//!
//! Each instance counts for itself: several behind one address allow as many times more.

pub(crate) mod rate;

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock};

use tidings_notify::UserId;
use tokio::sync::watch;

use self::rate::{Exceeded, Rate};
use crate::access::Caller;
use crate::config::Config;
use crate::settings::limits::LimitSettings;

/// The notifications that were taken from the rates of their users.
#[derive(Debug)]
#[must_use]
pub(crate) struct Taken(Vec<(UserId, NonZeroU32)>);

/// The limits of a running server.
#[derive(Debug)]
pub(crate) struct Limits {
    now: RwLock<Arc<Current>>,
    max_connections: watch::Sender<usize>,
}

/// The limits at a moment. A rate is `None` if it is not limited.
#[derive(Debug)]
pub(crate) struct Current {
    pub(crate) settings: LimitSettings,
    /// Requests of each API key; those of the configuration count together.
    of_keys: Option<Arc<Rate<String>>>,
    /// Requests of each user with a token.
    of_users: Option<Arc<Rate<String>>>,
    /// Notifications for each user.
    notifications: Option<Arc<Rate<UserId>>>,
}

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            now: RwLock::new(Arc::new(Current::new(&config.limits, None))),
            max_connections: watch::Sender::new(config.max_connections()),
        }
    }

    /// Changes the limits. What is open beyond the new ones stays open, and a rate that is the same goes on counting.
    pub(crate) fn change(&self, config: &Config) {
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        *now = Arc::new(Current::new(&config.limits, Some(&now)));
        self.max_connections.send_replace(config.max_connections());
    }

    /// The limits as they are now.
    pub(crate) fn now(&self) -> Arc<Current> {
        // The value is replaced whole, so a poisoned lock is still right.
        Arc::clone(&self.now.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The maximum number of connections.
    pub(crate) fn max_connections(&self) -> watch::Receiver<usize> {
        self.max_connections.subscribe()
    }

    /// The rate of a caller's requests, and the key by which it is counted.
    pub(crate) fn of_requests(&self, caller: &Caller) -> Option<(Arc<Rate<String>>, String)> {
        let now = self.now();
        let rate = match caller {
            Caller::Operator | Caller::Key(_) => &now.of_keys,
            Caller::User(_) => &now.of_users,
        };
        Some((rate.clone()?, caller.namespace()))
    }

    /// Takes the notifications of one request from the rates of their users: all, or none.
    pub(crate) fn take_notifications<'a>(
        &self,
        users: impl Iterator<Item = &'a UserId>,
    ) -> Result<Taken, (NonZeroU32, Exceeded<UserId>)> {
        let now = self.now();
        let Some(rate) = &now.notifications else {
            return Ok(Taken(Vec::new()));
        };
        let mut counts: HashMap<&UserId, u32> = HashMap::new();
        for user in users {
            *counts.entry(user).or_default() += 1;
        }
        let counts: Vec<_> = counts
            .into_iter()
            .filter_map(|(user, count)| Some((user.clone(), NonZeroU32::new(count)?)))
            .collect();
        match rate.take_all(counts.iter().cloned()) {
            Ok(()) => Ok(Taken(counts)),
            Err(exceeded) => Err((rate.per_second(), exceeded)),
        }
    }

    /// Gives back what was taken for a request that became no notification.
    pub(crate) fn give_back(&self, Taken(counts): Taken) {
        if let Some(rate) = &self.now().notifications {
            for (user, count) in counts {
                rate.give_back(&user, count);
            }
        }
    }
}

impl Current {
    fn new(settings: &LimitSettings, before: Option<&Self>) -> Self {
        Self {
            of_keys: rate(
                settings.max_key_requests,
                before.and_then(|before| before.of_keys.as_ref()),
            ),
            of_users: rate(
                Some(settings.max_user_requests),
                before.and_then(|before| before.of_users.as_ref()),
            ),
            notifications: rate(
                settings.max_user_notifications,
                before.and_then(|before| before.notifications.as_ref()),
            ),
            settings: settings.clone(),
        }
    }
}

/// The rate from before if it is the same, which has counted.
fn rate<K: Eq + Hash + Clone>(
    per_second: Option<NonZeroU32>,
    before: Option<&Arc<Rate<K>>>,
) -> Option<Arc<Rate<K>>> {
    let per_second = per_second?;
    let same = before.filter(|rate| rate.per_second() == per_second);
    Some(same.map_or_else(|| Arc::new(Rate::new(per_second)), Arc::clone))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[&str]) -> Config {
        Config::from_flags([&["--dev"], flags].concat()).unwrap()
    }

    #[test]
    fn a_change_keeps_the_counts_of_a_rate_that_stays() {
        let limits = Limits::new(&config(&[
            "--max-key-requests=1",
            "--max-user-notifications=1",
        ]));
        let take = || {
            let (rate, key) = limits.of_requests(&Caller::Operator)?;
            Some(rate.take(&key).is_ok())
        };
        let anna = UserId::new("anna").unwrap();
        let notify = || limits.take_notifications([&anna].into_iter()).is_ok();
        assert_eq!((take(), notify()), (Some(true), true));
        limits.change(&config(&[
            "--max-key-requests=1",
            "--max-user-notifications=2",
        ]));
        assert_eq!((take(), notify()), (Some(false), true));
        limits.change(&config(&["--max-streams=1", "--max-user-notifications=2"]));
        assert_eq!((take(), notify(), notify()), (None, true, false));
        assert_eq!(limits.now().settings.max_streams, 1);
        assert_eq!(*limits.max_connections().borrow(), 1025);
    }
}
