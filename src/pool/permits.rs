//! Who may put a message into a queue: a permit for each place.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

/// Which part of the places of all queues together is reserved.
const RESERVED_PART: usize = 4;

/// How many of the reserved places one lane may hold.
const RESERVED_FOR_EACH: usize = 16;

/// The places of all queues together.
///
/// Lanes take from the shared places first. A quarter of all places is reserved: of these a lane
/// may hold only a few. So a hundred lanes whose endpoints fail can take all shared places, and the
/// messages of the other lanes are still accepted.
#[derive(Debug)]
pub(crate) struct QueueSpace {
    shared: Semaphore,
    reserved: Semaphore,
}

/// The places of one lane's queue.
#[derive(Debug)]
pub(crate) struct Permits {
    own: Semaphore,
    all: Option<AllQueues>,
    closed: CancellationToken,
}

/// What a lane holds of the places of all queues together.
#[derive(Debug)]
struct AllQueues {
    space: Arc<QueueSpace>,
    /// How many reserved places the lane may still take.
    reserved_left: Semaphore,
    /// How many reserved places the lane holds.
    reserved_held: AtomicUsize,
}

/// One place in a queue, until it is dropped.
#[derive(Debug)]
pub(crate) struct QueuePermit(Arc<Permits>);

impl QueueSpace {
    pub(crate) fn new(places: usize) -> Arc<Self> {
        let reserved = places / RESERVED_PART;
        Arc::new(Self {
            shared: Semaphore::new(places - reserved),
            reserved: Semaphore::new(reserved),
        })
    }
}

impl Permits {
    pub(crate) fn new(places: usize, all: Option<Arc<QueueSpace>>) -> Arc<Self> {
        Arc::new(Self {
            own: Semaphore::new(places),
            all: all.map(|space| AllQueues {
                space,
                reserved_left: Semaphore::new(RESERVED_FOR_EACH),
                reserved_held: AtomicUsize::new(0),
            }),
            closed: CancellationToken::new(),
        })
    }

    /// Takes a place if one is free.
    pub(crate) fn try_acquire(self: &Arc<Self>) -> Option<QueuePermit> {
        let own = self.own.try_acquire().ok()?;
        if let Some(all) = &self.all {
            all.try_acquire()?;
        }
        own.forget();
        Some(QueuePermit(Arc::clone(self)))
    }

    /// Waits for a place, in turn; `None` once the queue is closed.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Option<QueuePermit> {
        let acquire = async {
            let own = self.own.acquire().await.ok()?;
            if let Some(all) = &self.all {
                all.acquire().await;
            }
            own.forget();
            Some(QueuePermit(Arc::clone(self)))
        };
        if self.all.is_none() {
            // Closing its only semaphore ends the wait.
            return acquire.await;
        }
        tokio::select! {
            biased;
            () = self.closed.cancelled() => None,
            permit = acquire => permit,
        }
    }

    /// Ends the wait of all callers that wait for a place of this queue.
    pub(crate) fn close(&self) {
        self.own.close();
        self.closed.cancel();
    }
}

impl AllQueues {
    fn try_acquire(&self) -> Option<()> {
        if let Ok(shared) = self.space.shared.try_acquire() {
            shared.forget();
            return Some(());
        }
        let left = self.reserved_left.try_acquire().ok()?;
        let reserved = self.space.reserved.try_acquire().ok()?;
        self.hold_reserved(left, reserved);
        Some(())
    }

    async fn acquire(&self) {
        let reserved = async {
            let left = self.reserved_left.acquire().await;
            (left, self.space.reserved.acquire().await)
        };
        tokio::select! {
            biased;
            // Neither semaphore is ever closed.
            Ok(shared) = self.space.shared.acquire() => shared.forget(),
            (Ok(left), Ok(reserved)) = reserved => self.hold_reserved(left, reserved),
            else => std::future::pending().await,
        }
    }

    fn hold_reserved(&self, left: SemaphorePermit<'_>, reserved: SemaphorePermit<'_>) {
        left.forget();
        reserved.forget();
        self.reserved_held.fetch_add(1, Ordering::Relaxed);
    }

    /// Gives a place back, a reserved one if the lane holds any.
    fn release(&self) {
        let held =
            (self.reserved_held).fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| {
                held.checked_sub(1)
            });
        if held.is_ok() {
            self.space.reserved.add_permits(1);
            self.reserved_left.add_permits(1);
        } else {
            self.space.shared.add_permits(1);
        }
    }
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        if let Some(all) = &self.0.all {
            all.release();
        }
        self.0.own.add_permits(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    /// Takes all that a lane can get without waiting.
    fn fill(permits: &Arc<Permits>) -> Vec<QueuePermit> {
        std::iter::from_fn(|| permits.try_acquire()).collect()
    }

    async fn is_pending<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
        poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
    }

    #[test]
    fn lanes_that_fill_the_queue_leave_reserved_places_to_the_others() {
        let space = QueueSpace::new(100_000);
        let lane = || Permits::new(1000, Some(Arc::clone(&space)));
        let failing: Vec<_> = (0..100).map(|_| fill(&lane())).collect();
        let held: usize = failing.iter().map(Vec::len).sum();
        assert_eq!(held, 75_000 + 25 * RESERVED_FOR_EACH);
        // Each of a thousand others is accepted.
        let others: Vec<_> = (0..1000).map(|_| lane().try_acquire()).collect();
        assert!(others.iter().all(Option::is_some));
    }

    #[test]
    fn one_lane_may_take_all_shared_places_and_its_part_of_the_reserved_ones() {
        let space = QueueSpace::new(100);
        let lane = Permits::new(1000, Some(Arc::clone(&space)));
        assert_eq!(fill(&lane).len(), 75 + RESERVED_FOR_EACH);
    }

    #[test]
    fn every_place_comes_back() {
        let space = QueueSpace::new(100);
        let lanes = [(); 3].map(|()| Permits::new(60, Some(Arc::clone(&space))));
        for _ in 0..3 {
            let held: Vec<_> = lanes.iter().map(fill).collect();
            assert_eq!(held.iter().map(Vec::len).sum::<usize>(), 60 + 31 + 9);
        }
        assert_eq!(space.shared.available_permits(), 75);
        assert_eq!(space.reserved.available_permits(), 25);
        for lane in &lanes {
            let all = lane.all.as_ref().unwrap();
            assert_eq!(all.reserved_left.available_permits(), RESERVED_FOR_EACH);
        }
    }

    #[tokio::test]
    async fn lanes_that_wait_for_a_shared_place_get_one_in_turn() {
        let space = QueueSpace::new(2);
        let [a, b, c] = [(); 3].map(|()| Permits::new(2, Some(Arc::clone(&space))));
        let mut held = fill(&a);
        assert_eq!(held.len(), 2);
        let (mut first, mut second) = (pin!(b.acquire()), pin!(c.acquire()));
        assert!(is_pending(first.as_mut()).await && is_pending(second.as_mut()).await);
        held.pop();
        assert!(is_pending(second.as_mut()).await);
        let permit = first.await;
        assert!(permit.is_some() && is_pending(second.as_mut()).await);
        held.pop();
        assert!(second.await.is_some());
    }

    #[tokio::test]
    async fn a_lane_with_nothing_queued_does_not_wait_behind_those_that_fill_the_queue() {
        let space = QueueSpace::new(80);
        let lane = || Permits::new(1000, Some(Arc::clone(&space)));
        let (hog, other) = (lane(), lane());
        let held = fill(&hog);
        assert_eq!(held.len(), 60 + RESERVED_FOR_EACH);
        let mut waits = pin!(hog.acquire());
        assert!(is_pending(waits.as_mut()).await);
        assert!(other.acquire().await.is_some());
    }

    #[tokio::test]
    async fn a_lane_that_waits_gets_its_own_reserved_place_when_it_is_free_again() {
        let space = QueueSpace::new(80);
        let hog = Permits::new(1000, Some(Arc::clone(&space)));
        let mut held = fill(&hog);
        let mut waits = pin!(hog.acquire());
        assert!(is_pending(waits.as_mut()).await);
        held.pop();
        assert!(waits.await.is_some());
    }

    #[tokio::test]
    async fn closing_ends_the_wait_for_places_of_other_queues_too() {
        let space = QueueSpace::new(1);
        let [a, b] = [(); 2].map(|()| Permits::new(1, Some(Arc::clone(&space))));
        let _held = a.try_acquire().unwrap();
        let mut waits = pin!(b.acquire());
        assert!(is_pending(waits.as_mut()).await);
        b.close();
        assert!(waits.await.is_none());
        assert!(b.try_acquire().is_none());
    }
}
