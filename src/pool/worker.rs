use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::Instrument;

use super::delivery::Delivery;
use super::lane::Settled;
use super::scheduler::{Ticket, Work};
use super::{Phase, Pool};
use crate::{Attempt, Endpoint, EndpointId, telemetry};

/// A worker: does what is to be done until nothing is left.
pub(super) async fn work(pool: Arc<Pool>) {
    while let Some(work) = pool.next().await {
        match work {
            Work::Attempt {
                id,
                endpoint,
                delivery,
                ticket,
            } => pool.attempt(id, endpoint, delivery, ticket).await,
            Work::Fail {
                id,
                delivery,
                failure,
            } => pool.fail(&id, *delivery, failure),
        }
    }
}

impl Pool {
    /// Waits for something to do; `None` when there is nothing any more.
    async fn next(&self) -> Option<Work> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Before the look at the lanes, so that no change after it is missed.
            changed.as_mut().enable();
            if self.abort.is_cancelled() {
                return None;
            }
            let work = {
                let mut state = self.lock();
                let draining = state.phase == Phase::Stopping;
                let now = Instant::now();
                let timer = state.scheduler.next_timer();
                state.scheduler.wake(now);
                let work = state.scheduler.pick(now, draining);
                if work.is_none() && draining && state.scheduler.queued() == 0 {
                    return None;
                }
                let has_another_timer = state.scheduler.next_timer() != timer;
                // One wakes the next one, so that a single notice is enough for any number of
                // things to do.
                self.something_may_go(state);
                if has_another_timer {
                    self.clock.notify_one();
                }
                work
            };
            self.tell_circuits();
            if work.is_some() {
                return work;
            }
            tokio::select! {
                () = changed => {}
                () = self.abort.cancelled() => return None,
            }
        }
    }

    async fn attempt(
        &self,
        id: EndpointId,
        endpoint: Endpoint,
        delivery: Box<Delivery>,
        ticket: Ticket,
    ) {
        let number = delivery.next_attempt();
        let span = delivery.span();
        let message = delivery.message.clone();
        let mut under_way = UnderWay::new(self, id, delivery, ticket);
        let attempt = {
            let attempt = self.sender.attempt(&endpoint, &message, number);
            let mut attempt = pin!(attempt.instrument(span.clone()));
            let began = Instant::now();
            let mut check_after = self.limits.isolation.map(|isolation| isolation.slow_after);
            loop {
                let check = async {
                    match check_after.and_then(|after| began.checked_add(after)) {
                        Some(at) => sleep_until(at).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    attempt = &mut attempt => break attempt,
                    () = self.abort.cancelled() => return,
                    () = check => check_after = under_way.still_waits(began.elapsed()),
                }
            }
        };
        span.in_scope(|| {
            self.attempted(&under_way.id, &message, &attempt);
            drop(message);
            under_way.settle(attempt);
        });
    }
}

/// A delivery in the hands of a worker. Dropped before its end, by an abort or with its runtime, it
/// is abandoned and not lost.
struct UnderWay<'a> {
    pool: &'a Pool,
    id: EndpointId,
    held: Option<(Box<Delivery>, Ticket)>,
}

impl<'a> UnderWay<'a> {
    fn new(pool: &'a Pool, id: EndpointId, delivery: Box<Delivery>, ticket: Ticket) -> Self {
        telemetry::in_flight(true);
        Self {
            pool,
            id,
            held: Some((delivery, ticket)),
        }
    }

    /// Tells that there is no answer yet, and learns after how long to tell again.
    fn still_waits(&mut self, elapsed: Duration) -> Option<Duration> {
        let (_, ticket) = self.held.as_mut()?;
        let mut state = self.pool.lock();
        let again = state.scheduler.still_under_way(ticket, elapsed);
        // The worker that this attempt held may be another's now.
        self.pool.something_may_go(state);
        // Never at once: the clock may be coarser than what was asked for.
        again.map(|again| again.max(elapsed + Duration::from_millis(1)))
    }

    fn settle(mut self, attempt: Attempt) {
        let Some((delivery, ticket)) = self.held.take() else {
            return;
        };
        let mut state = self.pool.lock();
        let settled = state
            .scheduler
            .settle(&ticket, delivery, attempt, Instant::now());
        self.pool.something_may_go(state);
        match settled {
            Settled::Waits => {}
            Settled::Delivered(delivery) => self.pool.delivered(&self.id, *delivery),
            Settled::Failed(delivery, failure) => self.pool.fail(&self.id, *delivery, failure),
            Settled::Gone(delivery, left) => self.pool.fail_as_gone(&self.id, *delivery, left),
        }
        self.pool.tell_circuits();
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        telemetry::in_flight(false);
        if let Some((delivery, ticket)) = self.held.take() {
            self.pool.lock().scheduler.forget(&ticket, Instant::now());
            self.pool.abandon(&self.id, *delivery, true);
        }
    }
}
