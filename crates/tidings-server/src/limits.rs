//! How much callers may ask for in a second, and users get.
//!
//! Each instance counts for itself: several behind one address allow as many times more.

pub(crate) mod rate;

use std::collections::HashMap;
use std::num::NonZeroU32;

use tidings_notify::UserId;

use self::rate::{Exceeded, Rate};
use crate::access::Caller;
use crate::config::Config;

/// The notifications that were taken from the rates of their users.
#[derive(Debug)]
#[must_use]
pub(crate) struct Taken(Vec<(UserId, NonZeroU32)>);

/// The rates, each `None` if it is not limited.
#[derive(Debug)]
pub(crate) struct Limits {
    /// Requests of each API key; those of the configuration count together.
    of_keys: Option<Rate<String>>,
    /// Requests of each user with a token.
    of_users: Option<Rate<String>>,
    /// Notifications for each user.
    notifications: Option<Rate<UserId>>,
}

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        fn rate<K: Eq + std::hash::Hash + Clone>(
            per_second: Option<NonZeroU32>,
        ) -> Option<Rate<K>> {
            per_second.map(Rate::new)
        }
        Self {
            of_keys: rate(config.max_key_requests),
            of_users: rate(Some(config.max_user_requests)),
            notifications: rate(config.max_user_notifications),
        }
    }

    /// The rate of a caller's requests, and the key by which it is counted.
    pub(crate) fn of_requests(&self, caller: &Caller) -> Option<(&Rate<String>, String)> {
        let rate = match caller {
            Caller::Operator | Caller::Key(_) => &self.of_keys,
            Caller::User(_) => &self.of_users,
        };
        Some((rate.as_ref()?, caller.namespace()))
    }

    /// Takes the notifications of one request from the rates of their users: all, or none.
    pub(crate) fn take_notifications<'a>(
        &self,
        users: impl Iterator<Item = &'a UserId>,
    ) -> Result<Taken, (NonZeroU32, Exceeded<UserId>)> {
        let Some(rate) = &self.notifications else {
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
        if let Some(rate) = &self.notifications {
            for (user, count) in counts {
                rate.give_back(&user, count);
            }
        }
    }
}
