use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep_until};

use super::delivery::Delivery;
use super::lane::Settled;

use super::scheduler::{AttemptPermit, Work};
use super::{Phase, Pool, report};
use crate::panics::{self, catch, catch_async};
use crate::retry::RetryPolicy;
use crate::{Attempt, AttemptError, Endpoint, EndpointId, ErrorKind, Phases, Verdict, telemetry};

/// One of the tasks that work. When the last of them ends, by itself or with its runtime, so does
/// the pool.
pub(super) struct Worker {
    pool: Arc<Pool>,
}

impl Worker {
    /// Counts it at once: its task may be dropped before it runs.
    pub(super) fn new(pool: &Arc<Pool>) -> Self {
        Self {
            pool: Arc::clone(pool),
        }
    }

    /// Works until nothing is left to do. An abort of the pool drops the future, and with it what is
    /// under way, which is abandoned then.
    pub(super) async fn run(self) {
        let mut rng = Rng::new();
        loop {
            // Pinned where it is made, here and below: as a part of another future it would be moved,
            // which is a good part of the cost of a delivery.
            match catch_async(pin!(self.step(&mut rng))).await {
                Some(true) => {}
                Some(false) => return,
                None => panics::log("a tracing layer or a recorder of metrics"),
            }
        }
    }

    /// Waits for something to do and does it. Returns `false` when nothing is left.
    async fn step(&self, rng: &mut Rng) -> bool {
        // Most of the time there is work, and no future that it would be moved out of.
        let work = match self.pool.look() {
            Look::Found(work) => work,
            Look::Nothing => self.pool.next().await,
        };
        match work {
            Some(Work::Attempt {
                id,
                endpoint,
                delivery,
                permit,
            }) => {
                let mut under_way = UnderWay::new(&self.pool, id, delivery, permit);
                under_way.attempt(&endpoint, rng).await;
                true
            }
            Some(Work::Fail {
                id,
                delivery,
                failure,
            }) => {
                self.pool.fail(&id, *delivery, None, failure);
                // However many fail one after the other, other tasks run in between.
                consume_budget().await;
                true
            }
            None => false,
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.pool.worker_ended();
    }
}

/// What a worker found.
enum Look {
    /// Something to do, or that nothing will come any more.
    Found(Option<Work>),
    /// Nothing yet.
    Nothing,
}

impl Pool {
    /// Waits for something to do; `None` when nothing is left.
    async fn next(&self) -> Option<Work> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Before the look at the lanes, so that no change after it is missed.
            changed.as_mut().enable();
            if let Look::Found(work) = self.look() {
                return work;
            }
            changed.await;
        }
    }

    fn look(&self) -> Look {
        self.change(|state| {
            if state.is_aborted {
                return Look::Found(None);
            }
            let draining = state.phase == Phase::Stopping;
            let now = Instant::now();
            state.scheduler.wake(now);
            let work = state.scheduler.pick(now, draining);
            if work.is_none() && !(draining && state.scheduler.queued() == 0) {
                return Look::Nothing;
            }
            Look::Found(work)
        })
    }

    /// Waits for an attempt, and notes meanwhile if it takes long.
    async fn watch(
        &self,
        mut attempt: Pin<&mut impl Future<Output = Attempt>>,
        permit: &mut AttemptPermit,
    ) -> Attempt {
        let Some(isolation) = self.limits.isolation else {
            return attempt.await;
        };
        let began = permit.began;
        let mut check_after = Some(isolation.slow_after);
        loop {
            let check = async {
                match check_after.and_then(|after| began.checked_add(after)) {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                attempt = &mut attempt => return attempt,
                // The worker that this attempt held may be another's now.
                () = check => check_after = self.change(|state| {
                    state.scheduler.check_late(permit, began.elapsed())
                }),
            }
        }
    }
}

/// A delivery in the hands of a worker. If it is dropped before its end, by an abort or with its
/// runtime, it is abandoned and not lost.
struct UnderWay<'a> {
    pool: &'a Pool,
    id: EndpointId,
    held: Option<(Box<Delivery>, AttemptPermit)>,
}

impl<'a> UnderWay<'a> {
    fn new(pool: &'a Pool, id: EndpointId, delivery: Box<Delivery>, permit: AttemptPermit) -> Self {
        let under_way = Self {
            pool,
            id,
            held: Some((delivery, permit)),
        };
        catch(|| telemetry::in_flight(true));
        under_way
    }

    /// Makes an attempt and settles it. A panic in the caller's code is a failed attempt.
    async fn attempt(&mut self, endpoint: &Endpoint, rng: &mut Rng) {
        let Some((delivery, permit)) = &mut self.held else {
            return;
        };
        let (pool, began) = (self.pool, permit.began);
        let (message, span) = (&delivery.message, delivery.span());
        let number = delivery.next_attempt();
        let mut made = None;
        {
            let attempt = pin!(pool.sender.attempt(endpoint, message, number));
            let attempt = pin!(span.around(attempt));
            // Kept where it is made: as the output of several futures it would be moved by each.
            catch_async(pin!(async {
                made = Some(pool.watch(attempt, permit).await);
            }))
            .await;
        }
        let attempt = made.unwrap_or_else(|| {
            panics::log("a resolver, a signer or a transport");
            let attempt = panicked(number, began.elapsed());
            catch(|| telemetry::attempted(&attempt));
            attempt
        });
        pool.attempted(&self.id, message, &attempt, &span);
        self.settle(endpoint, attempt, rng);
    }

    fn settle(&mut self, endpoint: &Endpoint, attempt: Attempt, rng: &mut Rng) {
        let Some((delivery, mut permit)) = self.held.take() else {
            return;
        };
        // Used and dropped outside of the lock: the backoff may be the caller's own.
        let retry = permit.retry.take();
        let retry_after = retry
            .as_ref()
            .filter(|_| attempt.verdict() == Verdict::Retryable)
            .and_then(|retry| next_delay(retry, &delivery, &attempt, rng.f64()));
        let asked = attempt.retry_after();
        let (settled, new_pause, now) = self.pool.change(|state| {
            let now = Instant::now();
            let settled = (state.scheduler).settle(permit, delivery, &attempt, retry_after, now);
            let new_pause = asked.filter(|_| state.take_new_pause(&self.id));
            (settled, new_pause, now)
        });
        drop_policy(retry);
        let (pool, id) = (self.pool, &self.id);
        if let Some(asked) = new_pause {
            report::paused(id, endpoint, asked);
        }
        match settled {
            // After an abort the last worker that ends abandons it.
            Settled::Waits => {}
            Settled::Delivered(delivery) => {
                pool.delivered(id, *delivery, attempt, now);
            }
            Settled::Failed(delivery, failure) => {
                pool.fail(id, *delivery, Some(attempt), failure);
            }
            Settled::Gone(delivery, left) => {
                pool.fail_as_gone(id, endpoint, *delivery, attempt, left);
            }
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        catch(|| telemetry::in_flight(false));
        if let Some((delivery, mut permit)) = self.held.take() {
            let retry = permit.retry.take();
            self.pool
                .change(|state| state.scheduler.forget(permit, Instant::now()));
            drop_policy(retry);
            self.pool.abandon(&self.id, *delivery, true);
        }
    }
}

/// The wait before the next attempt; `None` to give up, also when the policy panics.
fn next_delay(
    retry: &RetryPolicy,
    delivery: &Delivery,
    attempt: &Attempt,
    random: f64,
) -> Option<Duration> {
    let (age, hint) = (delivery.age(), attempt.retry_after());
    let delay = catch(|| retry.next_delay(attempt.number, age, hint, random));
    delay.unwrap_or_else(|| {
        panics::log("a backoff");
        None
    })
}

/// Drops a policy that was perhaps replaced in the meantime, and with it the caller's backoff.
fn drop_policy(retry: Option<RetryPolicy>) {
    if catch(|| drop(retry)).is_none() {
        panics::log("the drop of a backoff");
    }
}

/// The record of an attempt in which the caller's code panicked.
fn panicked(number: u32, elapsed: Duration) -> Attempt {
    let now = Timestamp::now();
    let error = AttemptError::new(ErrorKind::Local, Panicked).ambiguous(true);
    Attempt {
        number,
        started_at: now.saturating_sub(elapsed).unwrap_or(now),
        elapsed,
        phases: Phases::default(),
        verdict: Verdict::Retryable,
        result: Err(error),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("a part of the sender that was handed in panicked")]
struct Panicked;
