//! How far each user has been sent their events, before it is written to the store.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_reconnect::Trouble;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::{Epoch, EventId, Store, StoreError, UserId};

/// Time that marks wait for others to be written with.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Marks written at a time, so that no other call waits long behind them.
const MARKS_PER_WRITE: usize = 512;

/// The marks that are not written yet: one for each user, however many events.
#[derive(Debug, Default)]
pub(crate) struct Delivered {
    marks: Mutex<HashMap<UserId, EventId>>,
    /// There is something to write.
    work: Notify,
    /// It should be written at once.
    hurry: Notify,
}

impl Delivered {
    /// Records that a user has been sent everything up to an event. The user's log has the epoch `present`, as far
    /// as is known: what a slow client was sent of an earlier one says nothing about it.
    pub(crate) fn mark(&self, user: &UserId, id: EventId, present: Epoch) {
        let mut marks = self.marks();
        if let Some(mark) = marks.get_mut(user) {
            let is_newer = if mark.epoch == id.epoch {
                mark.seq < id.seq
            } else {
                mark.epoch != present
            };
            if is_newer {
                *mark = id;
            }
            return;
        }
        marks.insert(user.clone(), id);
        drop(marks);
        self.work.notify_one();
    }

    /// The mark of a user that may not be in the store yet.
    pub(crate) fn pending(&self, user: &UserId) -> Option<EventId> {
        self.marks().get(user).copied()
    }

    /// Has the marks written without waiting for more.
    pub(crate) fn flush_soon(&self) {
        self.hurry.notify_one();
    }

    /// Writes marks whenever there are some.
    pub(crate) async fn run(&self, store: &dyn Store) {
        let mut trouble = Trouble::new();
        if !self.marks().is_empty() {
            // A run that panicked has left them.
            self.work.notify_one();
        }
        loop {
            self.work.notified().await;
            // In either case they are written now; the wait only gathers more.
            let _gathered = timeout(FLUSH_INTERVAL, self.hurry.notified()).await;
            let flushed = self.flush(store).await;
            if let Err(error) = flushed {
                if trouble.failed() {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to store which notifications were sent, trying again each second"
                    );
                }
                sleep(FLUSH_INTERVAL).await;
                self.work.notify_one();
            } else if trouble.worked() {
                tracing::info!("which notifications were sent can be stored again");
            }
        }
    }

    /// Writes all marks there are.
    ///
    /// They stay until they are written, so that a stream that begins meanwhile sees them.
    pub(crate) async fn flush(&self, store: &dyn Store) -> Result<(), StoreError> {
        let all: Vec<_> = {
            let marks = self.marks();
            marks.iter().map(|(user, id)| (user.clone(), *id)).collect()
        };
        for written in all.chunks(MARKS_PER_WRITE) {
            store.mark_delivered(written.to_vec()).await?;
            self.forget(written);
        }
        Ok(())
    }

    /// Removes the marks that are written, unless they have moved on meanwhile.
    fn forget(&self, written: &[(UserId, EventId)]) {
        let mut marks = self.marks();
        for (user, id) in written {
            if marks.get(user) == Some(id) {
                marks.remove(user);
            }
        }
        if !marks.is_empty() {
            self.work.notify_one();
        }
    }

    fn marks(&self) -> MutexGuard<'_, HashMap<UserId, EventId>> {
        // Nothing in here panics half-way through a change.
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regression_a_late_mark_of_an_earlier_epoch_replaces_none_of_the_present_one() {
        let [earlier, present] = [1, 2].map(Epoch::from_u64);
        let delivered = Delivered::default();
        let user = UserId::new("ann").unwrap();
        let ids = [
            (earlier, 7, (earlier, 7)),
            (present, 12, (present, 12)),
            (earlier, 20, (present, 12)),
            (present, 11, (present, 12)),
            (present, 13, (present, 13)),
        ];
        for (epoch, seq, kept) in ids {
            delivered.mark(&user, EventId::new(epoch, seq), present);
            let kept = EventId::new(kept.0, kept.1);
            assert_eq!(
                delivered.pending(&user),
                Some(kept),
                "after {epoch:?}-{seq}"
            );
        }
    }
}
