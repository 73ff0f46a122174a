use std::collections::VecDeque;

use tokio::sync::mpsc;

use crate::{Call, MAX_BYTES, MAX_ITEMS, QUEUE, Request};

/// The calls that come through a queue, for the one task that does them. Dropping it refuses further
/// calls, and those that have not been taken.
#[derive(Debug)]
pub struct Calls<Q, R> {
    queue: mpsc::Receiver<Call<Q, R>>,
    /// What has come, in order.
    waiting: VecDeque<Call<Q, R>>,
    /// Where calls arrive; empty between two calls of `wait`.
    arriving: Vec<Call<Q, R>>,
}

impl<Q, R> Calls<Q, R> {
    pub(crate) fn new(queue: mpsc::Receiver<Call<Q, R>>) -> Self {
        Self {
            queue,
            waiting: VecDeque::new(),
            arriving: Vec::with_capacity(QUEUE),
        }
    }

    /// Waits until there are calls. `false` once no caller can come any more.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no call.
    pub async fn wait(&mut self) -> bool {
        let count = self.queue.recv_many(&mut self.arriving, QUEUE).await;
        self.waiting.extend(self.arriving.drain(..));
        count > 0
    }

    /// Puts calls before those that came later.
    pub fn put_first(&mut self, calls: impl DoubleEndedIterator<Item = Call<Q, R>>) {
        for call in calls.rev() {
            self.waiting.push_front(call);
        }
    }

    /// Whether a caller is about to call, has called, or holds a clone of the first [`Queue`](crate::Queue).
    pub fn is_used(&self) -> bool {
        self.queue.sender_strong_count() > 1 || !self.queue.is_empty() || !self.waiting.is_empty()
    }
}

impl<Q: Request, R> Calls<Q, R> {
    /// Takes the calls that can be done together next, in their order: as many as
    /// [`MAX_ITEMS`] and [`MAX_BYTES`] allow. `None` if none wait.
    ///
    /// Calls whose callers have dropped their futures are left out: nothing of them has been done.
    pub fn next_batch(&mut self) -> Option<Vec<Call<Q, R>>> {
        let mut batch: Vec<Call<Q, R>> = Vec::new();
        let (mut items, mut bytes) = (0, 0);
        while let Some(next) = self.waiting.pop_front() {
            if next.is_given_up() {
                continue;
            }
            let request = &next.request;
            if let Some(first) = batch.first()
                && !(request.fits(&first.request)
                    && items + request.items() <= MAX_ITEMS
                    && bytes + request.bytes() <= MAX_BYTES)
            {
                self.waiting.push_front(next);
                break;
            }
            items += request.items();
            bytes += request.bytes();
            batch.push(next);
        }
        (!batch.is_empty()).then_some(batch)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;

    use super::*;
    use crate::{NotDone, queue};

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    struct Work {
        items: usize,
        bytes: usize,
        kind: u8,
    }

    impl Request for Work {
        fn items(&self) -> usize {
            self.items
        }

        fn bytes(&self) -> usize {
            self.bytes
        }

        fn fits(&self, earlier: &Self) -> bool {
            self.kind == earlier.kind
        }
    }

    fn work(items: usize, bytes: usize, kind: u8) -> Work {
        Work { items, bytes, kind }
    }

    /// Polls a future once, which is to be pending.
    async fn begin(mut future: impl Future + Unpin) {
        poll_fn(|context| {
            assert!(std::pin::Pin::new(&mut future).poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
    }

    /// The sizes in items of the batches that these requests make.
    async fn batches(requests: &[Work]) -> Vec<Vec<usize>> {
        let (queue, mut calls) = queue::<Work, ()>();
        let mut callers: Vec<_> = requests
            .iter()
            .map(|it| Box::pin(queue.call(*it)))
            .collect();
        for caller in &mut callers {
            begin(caller).await;
        }
        assert!(calls.wait().await);
        let mut batches = Vec::new();
        while let Some(batch) = calls.next_batch() {
            batches.push(batch.iter().map(|call| call.request.items).collect());
        }
        batches
    }

    #[tokio::test]
    async fn a_batch_has_a_bound_and_a_larger_request_goes_alone() {
        let items = [work(600, 0, 0), work(500, 0, 0), work(500, 0, 0)];
        assert_eq!(batches(&items).await, [vec![600], vec![500, 500]]);
        let large = [work(2 * MAX_ITEMS, 0, 0), work(1, 0, 0)];
        assert_eq!(batches(&large).await, [[2 * MAX_ITEMS], [1]]);
        let bytes = [work(1, MAX_BYTES - 1, 0), work(2, 1, 0), work(3, 1, 0)];
        assert_eq!(batches(&bytes).await, [vec![1, 2], vec![3]]);
    }

    #[tokio::test]
    async fn what_does_not_fit_makes_another_batch_and_the_order_stays() {
        let mixed = [work(1, 0, 0), work(2, 0, 0), work(3, 0, 1), work(4, 0, 0)];
        assert_eq!(batches(&mixed).await, [vec![1, 2], vec![3], vec![4]]);
    }

    #[tokio::test]
    async fn what_no_caller_waits_for_is_left_out() {
        let (queue, mut calls) = queue::<Work, u8>();
        let mut kept = pin!(queue.call(work(1, 0, 0)));
        begin(kept.as_mut()).await;
        begin(Box::pin(queue.call(work(2, 0, 0)))).await;
        assert!(calls.wait().await);
        let batch = calls.next_batch().unwrap();
        assert_eq!(batch.len(), 1);
        for call in batch {
            call.reply(7);
        }
        assert!(calls.next_batch().is_none());
        assert_eq!(kept.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn calls_that_are_put_back_come_first_and_in_order() {
        let (queue, mut calls) = queue::<Work, ()>();
        let mut callers: Vec<_> = (1..=3)
            .map(|n| Box::pin(queue.call(work(n, 0, 0))))
            .collect();
        for caller in &mut callers[..2] {
            begin(caller).await;
        }
        assert!(calls.wait().await);
        let first = calls.next_batch().unwrap();
        begin(&mut callers[2]).await;
        assert!(calls.wait().await);
        calls.put_first(first.into_iter());
        let order: Vec<_> = calls.next_batch().unwrap();
        let order: Vec<_> = order.iter().map(|call| call.request.items).collect();
        assert_eq!(order, [1, 2, 3]);
    }

    #[tokio::test]
    async fn callers_notice_when_the_task_ends() {
        let (queue, mut calls) = queue::<Work, ()>();
        let mut taken = Box::pin(queue.call(work(1, 0, 0)));
        begin(&mut taken).await;
        assert!(calls.wait().await);
        let batch = calls.next_batch();
        drop((batch, calls));
        assert!(matches!(taken.await, Err(NotDone::Taken)));
        assert!(queue.is_closed());
        let untaken = queue.call(work(2, 0, 0)).await;
        assert!(matches!(
            untaken,
            Err(NotDone::Untaken(Work { items: 2, .. }))
        ));
    }

    #[tokio::test]
    async fn the_last_caller_ends_the_wait() {
        let (queue, mut calls) = queue::<Work, ()>();
        assert!(!calls.is_used());
        let other = queue.clone();
        assert!(calls.is_used());
        drop((queue, other));
        assert!(!calls.wait().await);
    }
}
