//! The workers, and what they share.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::delivery::{Delivery, Receipt, Reply};
use super::lane::{Lane, Next, Settled};
use crate::circuit_breaker::{CircuitState, Permit};
use crate::{DeliveryError, DeliveryErrorCause, Endpoint, Message, NotifyError, Sender};

pub(super) type OnError = Arc<dyn Fn(Message, DeliveryError) + Send + Sync>;

/// The lane of the endpoint and everything that its workers need.
pub(super) struct Pool {
    sender: Sender,
    endpoint: Endpoint,
    on_error: Option<OnError>,
    state: Mutex<State>,
    /// Wakes workers that found nothing to do.
    changed: Notify,
    /// Breaks off everything that is under way.
    abort: CancellationToken,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    lane: Lane,
    /// Messages that a stop left without a final outcome, until its caller takes them.
    abandoned: Vec<Message>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    NotStarted,
    Running,
    Stopping,
}

impl Pool {
    pub(super) fn new(
        sender: Sender,
        endpoint: Endpoint,
        lane: Lane,
        on_error: Option<OnError>,
    ) -> Self {
        Self {
            sender,
            endpoint,
            on_error,
            state: Mutex::new(State {
                phase: Phase::NotStarted,
                lane,
                abandoned: Vec::new(),
            }),
            changed: Notify::new(),
            abort: CancellationToken::new(),
        }
    }

    /// Runs `spawn_workers` once in a lifetime, unless the pool was stopped before.
    pub(super) fn start(&self, spawn_workers: impl FnOnce()) {
        let mut state = self.lock();
        if state.phase == Phase::NotStarted {
            // Under the lock: a stop at the same time finds either no worker or all of them.
            spawn_workers();
            state.phase = Phase::Running;
        }
    }

    /// Puts a message that has room into the lane, or hands it back.
    pub(super) fn accept(
        &self,
        message: Message,
        room: Option<OwnedSemaphorePermit>,
        reply: Option<Reply>,
    ) -> Result<(), NotifyError> {
        let mut state = self.lock();
        match (state.phase, room) {
            (Phase::NotStarted, _) => Err(NotifyError::NotStarted(message)),
            (Phase::Stopping, _) => Err(NotifyError::Stopped(message)),
            (Phase::Running, None) => Err(NotifyError::QueueFull(message)),
            (Phase::Running, Some(room)) => {
                state.lane.push(Delivery::new(message, room, reply));
                drop(state);
                self.changed.notify_one();
                Ok(())
            }
        }
    }

    pub(super) fn begin_stop(&self) {
        self.lock().phase = Phase::Stopping;
        self.changed.notify_waiters();
    }

    pub(super) fn abort(&self) {
        self.abort.cancel();
    }

    /// Gives up on everything in the lane.
    pub(super) fn abandon_rest(&self) {
        let left = self.lock().lane.drain();
        for delivery in left {
            self.abandon(delivery);
        }
    }

    pub(super) fn take_abandoned(&self) -> Vec<Message> {
        std::mem::take(&mut self.lock().abandoned)
    }

    pub(super) fn queued(&self) -> usize {
        self.lock().lane.len()
    }

    pub(super) fn circuit_state(&self) -> Option<CircuitState> {
        self.lock().lane.circuit_state()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held can only come from a backoff of the caller's own, and leaves
        // the lane in order.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for something to do; `None` when there is nothing any more.
    async fn next(&self) -> Option<Next> {
        loop {
            let mut changed = pin!(self.changed.notified());
            // Before the look at the lane, so that no change after it is missed.
            changed.as_mut().enable();
            if self.abort.is_cancelled() {
                return None;
            }
            let wake_at = {
                let mut state = self.lock();
                let draining = state.phase == Phase::Stopping;
                match state.lane.take(Instant::now(), draining) {
                    Next::Empty if draining => return None,
                    Next::Empty => None,
                    Next::Wait(wake_at) => wake_at,
                    next => return Some(next),
                }
            };
            let due = async {
                match wake_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed => {}
                () = due => {}
                () = self.abort.cancelled() => return None,
            }
        }
    }

    async fn attempt(&self, delivery: Delivery, permit: Option<Permit>) {
        let number = u32::try_from(delivery.attempts.len() + 1).unwrap_or(u32::MAX);
        let span = delivery.span.clone();
        let mut under_way = UnderWay {
            pool: self,
            delivery: Some(delivery),
            permit,
        };
        let Some(delivery) = &under_way.delivery else {
            return;
        };
        let attempt = tokio::select! {
            biased;
            attempt = self
                .sender
                .attempt(&self.endpoint, &delivery.message, number)
                .instrument(span.clone()) => attempt,
            () = self.abort.cancelled() => return,
        };
        let Some(delivery) = under_way.delivery.take() else {
            return;
        };
        let (settled, others_care) = span.in_scope(|| {
            let mut state = self.lock();
            let settled = state.lane.settle(delivery, permit, attempt, Instant::now());
            // There may be an earlier time to wake up at, the circuit may have changed, and during
            // a stop this may have been the last.
            let others_care = matches!(settled, Settled::Waits)
                || permit.is_some()
                || state.phase == Phase::Stopping;
            (settled, others_care)
        });
        if others_care {
            self.changed.notify_waiters();
        }
        match settled {
            Settled::Waits => {}
            Settled::Delivered(delivery) => delivered(delivery),
            Settled::Failed(delivery, cause) => self.fail(delivery, cause),
        }
    }

    fn fail(&self, delivery: Delivery, cause: DeliveryErrorCause) {
        let Delivery {
            message,
            attempts,
            reply,
            span,
            room,
            ..
        } = delivery;
        drop(room);
        let error = DeliveryError::new(message, attempts, cause);
        let unheard = match reply {
            Some(reply) => reply.send(Err(error)).err().and_then(Result::err),
            None => Some(error),
        };
        if let Some(error) = unheard {
            span.in_scope(|| self.report(error));
        }
    }

    fn abandon(&self, delivery: Delivery) {
        self.lock().abandoned.push(delivery.message.clone());
        self.fail(delivery, DeliveryErrorCause::Abandoned);
    }

    fn report(&self, error: DeliveryError) {
        let Some(on_error) = &self.on_error else {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                cause = %error.cause(),
                "a message was not delivered"
            );
            return;
        };
        let message = error.message().clone();
        if catch_unwind(AssertUnwindSafe(|| on_error(message, error))).is_err() {
            tracing::error!("the error callback panicked");
        }
    }
}

fn delivered(delivery: Delivery) {
    let Some(reply) = delivery.reply else {
        return;
    };
    // Whoever asked may have gone: then nobody wants the receipt.
    drop(reply.send(Ok(Receipt {
        message: delivery.message,
        attempts: delivery.attempts,
    })));
}

/// A worker: does what is to be done until nothing is left.
pub(super) async fn work(pool: Arc<Pool>) {
    while let Some(next) = pool.next().await {
        match next {
            Next::Attempt(delivery, permit) => pool.attempt(delivery, permit).await,
            Next::Fail(delivery, cause) => pool.fail(delivery, cause),
            Next::Wait(_) | Next::Empty => {}
        }
    }
}

/// A delivery in the hands of a worker. Dropped before its end, by an abort or with its runtime, it
/// is abandoned and not lost.
struct UnderWay<'a> {
    pool: &'a Pool,
    delivery: Option<Delivery>,
    permit: Option<Permit>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(delivery) = self.delivery.take() {
            self.pool.lock().lane.forget(self.permit, Instant::now());
            self.pool.abandon(delivery);
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let phase = self.lock().phase;
        f.debug_struct("Pool")
            .field("endpoint", &self.endpoint)
            .field("phase", &phase)
            .field("queued", &self.queued())
            .finish_non_exhaustive()
    }
}
