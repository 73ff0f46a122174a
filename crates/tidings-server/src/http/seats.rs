//! How many streams may be open, in all and for one user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tidings_notify::UserId;

/// The counted places for open streams.
#[derive(Debug)]
pub(crate) struct Seats {
    most: usize,
    most_per_user: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_user: HashMap<UserId, usize>,
}

/// One open stream's place; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Arc<Seats>,
    user: UserId,
}

/// Which limit is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The server has as many streams as it may.
    Server,
    /// The user has as many streams as one user may.
    User,
}

impl Seats {
    pub(crate) fn new(most: usize, most_per_user: usize) -> Arc<Self> {
        Arc::new(Self {
            most,
            most_per_user,
            taken: Mutex::default(),
        })
    }

    pub(crate) fn take(self: &Arc<Self>, user: &UserId) -> Result<Seat, Full> {
        // Counting cannot leave half a change behind, so a poisoned lock is still right.
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.all >= self.most {
            return Err(Full::Server);
        }
        let of_user = taken.by_user.get(user).copied().unwrap_or(0);
        if of_user >= self.most_per_user {
            return Err(Full::User);
        }
        taken.all += 1;
        taken.by_user.insert(user.clone(), of_user + 1);
        Ok(Seat {
            seats: Arc::clone(self),
            user: user.clone(),
        })
    }

    pub(crate) fn taken(&self) -> usize {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.all
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self
            .seats
            .taken
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
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

    #[test]
    fn both_limits_hold_and_a_dropped_seat_is_free_again() {
        let seats = Seats::new(3, 2);
        let (anna, ben) = (UserId::new("anna").unwrap(), UserId::new("ben").unwrap());
        let first = seats.take(&anna).unwrap();
        let _second = seats.take(&anna).unwrap();
        assert_eq!(seats.take(&anna).unwrap_err(), Full::User);
        let _third = seats.take(&ben).unwrap();
        assert_eq!(seats.take(&ben).unwrap_err(), Full::Server);
        drop(first);
        seats.take(&anna).unwrap();
        assert_eq!(seats.taken(), 2);
    }
}
