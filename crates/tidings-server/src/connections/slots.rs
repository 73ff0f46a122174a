//! How many connections may be open at the same time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// The places for connections. Their number may change.
#[derive(Debug)]
pub(super) struct Slots {
    max: watch::Receiver<usize>,
    /// The free ones and the taken ones: more than `max` while too many are open.
    count: usize,
    free: Arc<Semaphore>,
}

impl Slots {
    pub(super) fn new(max: watch::Receiver<usize>) -> Self {
        Self {
            max,
            count: 0,
            free: Arc::new(Semaphore::new(0)),
        }
    }

    /// Waits for a free place. It is free again when the permit is dropped.
    ///
    /// Cancel safe: a dropped call takes no place.
    pub(super) async fn take(&mut self) -> OwnedSemaphorePermit {
        loop {
            self.fit();
            let permit = tokio::select! {
                biased;
                Ok(()) = self.max.changed() => continue,
                permit = Arc::clone(&self.free).acquire_owned() => permit,
            };
            match permit {
                // There are too many: this place is not filled again.
                Ok(permit) if self.count > *self.max.borrow() => {
                    permit.forget();
                    self.count -= 1;
                }
                Ok(permit) => return permit,
                // The semaphore is never closed.
                Err(_closed) => std::future::pending().await,
            }
        }
    }

    /// Makes the places as many as they should be, as far as they are free.
    fn fit(&mut self) {
        let max = *self.max.borrow_and_update();
        if max > self.count {
            self.free.add_permits(max - self.count);
            self.count = max;
        } else {
            self.count -= self.free.forget_permits(self.count - max);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn the_number_of_places_follows_the_limit() {
        let max = watch::Sender::new(2);
        let mut slots = Slots::new(max.subscribe());
        let first = slots.take().await;
        let second = slots.take().await;
        assert!(slots.take().now_or_never().is_none());
        max.send_replace(3);
        let third = slots.take().await;
        assert!(slots.take().now_or_never().is_none());

        // One that waits learns of a higher limit.
        let mut waiting = Box::pin(slots.take());
        assert!((&mut waiting).now_or_never().is_none());
        max.send_replace(4);
        let fourth = waiting.now_or_never().unwrap();

        // Two must end before there is room for another, also for one that waits meanwhile.
        max.send_replace(3);
        let mut waiting = Box::pin(slots.take());
        assert!((&mut waiting).now_or_never().is_none());
        drop(first);
        assert!((&mut waiting).now_or_never().is_none());
        drop(second);
        let fifth = waiting.now_or_never().unwrap();
        assert!(slots.take().now_or_never().is_none());

        // Free places go at once.
        drop((third, fourth, fifth));
        max.send_replace(1);
        let _only = slots.take().await;
        assert!(slots.take().now_or_never().is_none());
    }

    #[tokio::test]
    async fn the_last_limit_stays_when_it_cannot_change_any_more() {
        let max = watch::Sender::new(1);
        let mut slots = Slots::new(max.subscribe());
        drop(max);
        let only = slots.take().await;
        assert!(slots.take().now_or_never().is_none());
        drop(only);
        drop(slots.take().await);
    }
}
