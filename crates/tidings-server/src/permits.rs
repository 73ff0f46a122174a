//! How many streams may be open, in all and for one user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidings_notify::UserId;

use crate::limits::Limits;
use crate::telemetry;

/// The permits for open streams.
#[derive(Debug)]
pub(crate) struct Permits {
    limits: Arc<Limits>,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    total: usize,
    by_user: HashMap<UserId, usize>,
}

/// The permit of one open stream; dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Permit {
    permits: Arc<Permits>,
    user: UserId,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    Server,
    User,
}

impl Full {
    /// The limit in words, for clients.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Server => "the server has reached its limit of open streams",
            Self::User => "the user has reached the limit of open streams",
        }
    }
}

impl Permits {
    pub(crate) fn new(limits: Arc<Limits>) -> Arc<Self> {
        Arc::new(Self {
            limits,
            taken: Mutex::default(),
        })
    }

    pub(crate) fn take(self: &Arc<Self>, user: &UserId) -> Result<Permit, Full> {
        let permit = self.try_take(user);
        permit.inspect_err(|limit| telemetry::stream_refused(*limit))
    }

    fn try_take(self: &Arc<Self>, user: &UserId) -> Result<Permit, Full> {
        let limits = self.limits.now();
        // Counting cannot leave half a change behind, so the value behind a poisoned lock is right.
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.total >= limits.settings.max_streams {
            return Err(Full::Server);
        }
        let of_user = taken.by_user.get(user).copied().unwrap_or(0);
        if of_user >= limits.settings.max_streams_per_user {
            return Err(Full::User);
        }
        taken.total += 1;
        taken.by_user.insert(user.clone(), of_user + 1);
        Ok(Permit {
            permits: Arc::clone(self),
            user: user.clone(),
        })
    }

    pub(crate) fn taken(&self) -> usize {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.total
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut taken = self
            .permits
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        taken.total -= 1;
        if let Some(of_user) = taken.by_user.get_mut(&self.user) {
            *of_user -= 1;
            if *of_user == 0 {
                taken.by_user.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    #[test]
    fn both_limits_hold_and_a_dropped_permit_is_free_again() {
        let flags = ["--dev", "--max-streams=3", "--max-streams-per-user=2"];
        let limits = Limits::new(&Config::from_flags(flags).unwrap());
        let permits = Permits::new(Arc::new(limits));
        let (anna, ben) = (UserId::new("anna").unwrap(), UserId::new("ben").unwrap());
        let first = permits.take(&anna).unwrap();
        let _second = permits.take(&anna).unwrap();
        assert_eq!(permits.take(&anna).unwrap_err(), Full::User);
        let _third = permits.take(&ben).unwrap();
        assert_eq!(permits.take(&ben).unwrap_err(), Full::Server);
        drop(first);
        permits.take(&anna).unwrap();
        assert_eq!(permits.taken(), 2);
    }
}
