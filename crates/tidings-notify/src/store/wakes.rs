//! Wake-ups that a store hears from outside.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tokio::sync::broadcast::{self, error::RecvError};

use crate::{StoreError, UserId};

/// A hint that something has changed in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wake {
    /// This user's log has changed.
    Changed(UserId),
    /// Some hints may have been lost: any log may have changed.
    Lost,
    /// The store was out of reach: besides, it may have lost what it had stored last without waiting for the disk,
    /// so that what was known of any log may be wrong, and its marks too.
    Reconnected,
}

/// The hints of a store, from the moment when they were asked for.
///
/// A receiver that falls behind gets one [`Wake::Lost`] for all that it has missed, or one [`Wake::Reconnected`] if that
/// may have been among it.
#[derive(Debug)]
pub struct Wakes {
    queue: broadcast::Receiver<Wake>,
    /// How often the store was connected again.
    reconnected: Arc<AtomicU64>,
    /// How often it had been when the receiver last fell behind.
    known: u64,
}

impl Wakes {
    /// Waits for the next hint; `None` when the store will send no more.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no hint.
    pub async fn next(&mut self) -> Option<Wake> {
        match self.queue.recv().await {
            Ok(wake) => Some(wake),
            Err(RecvError::Lagged(_)) => {
                let known = self.reconnected.load(Ordering::Acquire);
                if std::mem::replace(&mut self.known, known) == known {
                    Some(Wake::Lost)
                } else {
                    Some(Wake::Reconnected)
                }
            }
            Err(RecvError::Closed) => None,
        }
    }
}

/// The end of a store through which it sends its hints. Clones send to the same receivers.
#[derive(Debug, Clone)]
pub struct WakeSender {
    queue: broadcast::Sender<Wake>,
    reconnected: Arc<AtomicU64>,
}

impl WakeSender {
    /// A sender whose receivers may each fall this many hints behind, at least one, before they are
    /// informed that some are lost.
    pub fn new(capacity: usize) -> Self {
        Self {
            queue: broadcast::Sender::new(capacity.max(1)),
            reconnected: Arc::default(),
        }
    }

    /// Sends a hint to all receivers. Never waits.
    pub fn send(&self, wake: Wake) {
        if wake == Wake::Reconnected {
            // Before it can be dropped from the queue.
            self.reconnected.fetch_add(1, Ordering::Release);
        }
        // Without receivers there is no one to wake.
        drop(self.queue.send(wake));
    }

    /// Whether there is more than one receiver.
    #[cfg(feature = "postgres")]
    pub(crate) fn has_several_receivers(&self) -> bool {
        self.queue.receiver_count() > 1
    }

    /// A receiver of the hints from now on.
    pub fn receiver(&self) -> Wakes {
        Wakes {
            known: self.reconnected.load(Ordering::Acquire),
            queue: self.queue.subscribe(),
            reconnected: Arc::clone(&self.reconnected),
        }
    }
}

/// Carries hints between the processes that share a store, beside the store. Used as
/// `Arc<dyn WakeChannel>`.
///
/// A hint may be lost or repeated, and may come back to the process that sent it.
#[async_trait]
pub trait WakeChannel: fmt::Debug + Send + Sync + 'static {
    /// Sends hints to the other processes.
    ///
    /// # Errors
    ///
    /// When some of them were not sent. The caller may send them another way; it does not repeat them.
    async fn send(&self, wakes: &[Wake]) -> Result<(), StoreError>;

    /// What the other processes send from now on, and [`Wake::Lost`] whenever the connection was broken.
    fn wakes(&self) -> Wakes;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(name: &str) -> Wake {
        Wake::Changed(UserId::new(name).unwrap())
    }

    #[tokio::test]
    async fn regression_a_receiver_that_falls_behind_hears_of_a_reconnection() {
        let sender = WakeSender::new(1);
        let mut receiver = sender.receiver();
        for _ in 0..2 {
            sender.send(Wake::Reconnected);
            sender.send(changed("ann"));
            sender.send(changed("bob"));
            assert_eq!(receiver.next().await, Some(Wake::Reconnected));
            assert_eq!(receiver.next().await, Some(changed("bob")));
        }
        // Without one, hints are lost and nothing else.
        for mut receiver in [receiver, sender.receiver()] {
            sender.send(changed("ann"));
            sender.send(changed("bob"));
            assert_eq!(receiver.next().await, Some(Wake::Lost));
            assert_eq!(receiver.next().await, Some(changed("bob")));
        }
    }
}
