//! The users who have streams open here.

mod channel;
mod inbox;
mod ring;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::UserId;

pub(crate) use channel::{AfterCursor, Asked, Channel};

/// One channel for each user with open streams on this instance.
#[derive(Debug)]
pub(crate) struct Hub {
    table: Mutex<Table>,
    ring_capacity: usize,
}

#[derive(Debug, Default)]
struct Table {
    channels: HashMap<UserId, Entry>,
    closing: bool,
}

#[derive(Debug)]
struct Entry {
    channel: Arc<Channel>,
    /// Counted under the table's lock, so that a new stream never joins a channel that the last
    /// leaving stream is about to remove.
    streams: usize,
}

impl Hub {
    pub(crate) fn new(ring_capacity: usize) -> Self {
        Self {
            table: Mutex::default(),
            ring_capacity,
        }
    }

    /// Joins the user's channel with one more stream. Returns `None` if the hub is closing; otherwise
    /// the caller must call [`leave`](Self::leave) once.
    pub(crate) fn join(&self, user: &UserId) -> Option<Arc<Channel>> {
        let mut table = self.table();
        if table.closing {
            return None;
        }
        let entry = table.channels.entry(user.clone()).or_insert_with(|| Entry {
            channel: Arc::new(Channel::new(self.ring_capacity)),
            streams: 0,
        });
        entry.streams += 1;
        Some(entry.channel.clone())
    }

    /// Removes one stream from the user's channel, and the channel with the last stream.
    pub(crate) fn leave(&self, user: &UserId) {
        let mut table = self.table();
        if let Some(entry) = table.channels.get_mut(user) {
            entry.streams -= 1;
            if entry.streams == 0 {
                table.channels.remove(user);
            }
        }
    }

    /// The user's channel, if there are streams.
    pub(crate) fn channel(&self, user: &UserId) -> Option<Arc<Channel>> {
        let table = self.table();
        Some(table.channels.get(user)?.channel.clone())
    }

    /// All users with open streams.
    pub(crate) fn users(&self) -> Vec<UserId> {
        self.table().channels.keys().cloned().collect()
    }

    /// Refuses new streams, and ends the open ones once they have delivered what is known.
    pub(crate) fn close(&self) {
        self.table().closing = true;
        for channel in self.channels() {
            channel.close();
        }
    }

    /// Forgets all inboxes, because the store was rewound: all logs must be looked at next.
    pub(crate) fn forget_inboxes(&self) {
        for channel in self.channels() {
            channel.forget_inbox();
        }
    }

    fn channels(&self) -> Vec<Arc<Channel>> {
        let table = self.table();
        let entries = table.channels.values();
        entries.map(|entry| entry.channel.clone()).collect()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Nothing in here panics half-way through a change.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
