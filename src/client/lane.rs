//! What waits for one endpoint, and in which order it may go: the decisions, without the doing.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};

use tokio::time::Instant;

use super::delivery::Delivery;
use crate::circuit_breaker::{Admission, CircuitBreaker, CircuitState, Health, Permit};
use crate::retry::RetryPolicy;
use crate::{Attempt, DeliveryErrorCause, Verdict};

/// The deliveries of one endpoint that no worker holds, and its circuit breaker.
#[derive(Debug)]
pub(super) struct Lane {
    retry: Option<RetryPolicy>,
    breaker: Option<CircuitBreaker>,
    /// Deliveries whose attempt is due.
    ready: VecDeque<Delivery>,
    /// Deliveries whose attempt is not due yet, the earliest on top.
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// Tells apart deliveries that are due at the same time: first come, first served.
    next_number: u64,
    rng: fastrand::Rng,
}

/// What a worker is to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Make an attempt, and hand it to [`Lane::settle`].
    Attempt(Delivery, Option<Permit>),
    /// End a delivery.
    Fail(Delivery, DeliveryErrorCause),
    /// Ask again at a time, or when something has changed.
    Wait(Option<Instant>),
    /// Nothing is left.
    Empty,
}

/// What became of a delivery after an attempt.
#[derive(Debug)]
pub(super) enum Settled {
    Delivered(Delivery),
    Failed(Delivery, DeliveryErrorCause),
    /// It waits in the lane for its next attempt.
    Waits,
}

impl Lane {
    pub(super) fn new(retry: Option<RetryPolicy>, breaker: Option<CircuitBreaker>) -> Self {
        Self {
            retry,
            breaker,
            ready: VecDeque::new(),
            waiting: BinaryHeap::new(),
            next_number: 0,
            rng: fastrand::Rng::new(),
        }
    }

    pub(super) fn push(&mut self, delivery: Delivery) {
        self.ready.push_back(delivery);
    }

    pub(super) fn len(&self) -> usize {
        self.ready.len() + self.waiting.len()
    }

    pub(super) fn circuit_state(&self) -> Option<CircuitState> {
        self.breaker.as_ref().map(CircuitBreaker::state)
    }

    /// Decides what a worker does next. A lane that is being drained does not wait for an open
    /// circuit.
    pub(super) fn take(&mut self, now: Instant, draining: bool) -> Next {
        while self.waiting.peek().is_some_and(|next| next.0.due <= now) {
            let due = self.waiting.pop();
            self.ready
                .extend(due.map(|Reverse(waiting)| waiting.delivery));
        }
        let due = self.waiting.peek().map(|next| next.0.due);
        if self.ready.is_empty() {
            return due.map_or(Next::Empty, |due| Next::Wait(Some(due)));
        }
        let permit = match self.breaker.as_mut().map(|breaker| breaker.admit(now)) {
            None => None,
            Some(Admission::Admitted(permit)) => Some(permit),
            Some(Admission::Refused { retry_at }) => {
                let wake_at = [due, retry_at].into_iter().flatten().min();
                return self.refused(now, wake_at, draining && retry_at.is_some());
            }
        };
        let Some(mut delivery) = self.ready.pop_front() else {
            return Next::Empty;
        };
        if self.retry.is_none() {
            // It will never wait again: its place is free for another.
            delivery.room = None;
        }
        Next::Attempt(delivery, permit)
    }

    /// What to do while the circuit lets nothing through.
    fn refused(&mut self, now: Instant, wake_at: Option<Instant>, hopeless: bool) -> Next {
        let max_age = match &self.retry {
            Some(retry) if !hopeless => retry.max_age(),
            _ => return self.fail_at(0),
        };
        let Some(max_age) = max_age else {
            return Next::Wait(wake_at);
        };
        let expiry = |delivery: &Delivery| delivery.accepted_at.checked_add(max_age);
        let oldest = (self.ready.iter().enumerate())
            .filter_map(|(index, delivery)| Some((expiry(delivery)?, index)))
            .min();
        match oldest {
            Some((expires_at, index)) if expires_at <= now => self.fail_at(index),
            Some((expires_at, _)) => Next::Wait(wake_at.into_iter().chain([expires_at]).min()),
            None => Next::Wait(wake_at),
        }
    }

    fn fail_at(&mut self, index: usize) -> Next {
        match self.ready.remove(index) {
            Some(delivery) => Next::Fail(delivery, DeliveryErrorCause::CircuitOpen),
            None => Next::Empty,
        }
    }

    /// Takes note of an attempt, and decides what becomes of its delivery.
    pub(super) fn settle(
        &mut self,
        mut delivery: Delivery,
        permit: Option<Permit>,
        attempt: Attempt,
        now: Instant,
    ) -> Settled {
        let verdict = attempt.verdict();
        let health = match verdict {
            Verdict::Retryable => Health::Failing,
            _ if attempt.status().is_some() => Health::Healthy,
            // The request was never sent: that says nothing about the endpoint.
            _ => Health::Unknown,
        };
        self.record(permit, health, now);

        let not_before = attempt.retry_after();
        if let Some(last) = delivery.attempts.last_mut() {
            last.shorten_body();
        }
        delivery.attempts.push(attempt);
        if verdict == Verdict::Delivered {
            return Settled::Delivered(delivery);
        }
        let due = (verdict == Verdict::Retryable)
            .then_some(self.retry.as_ref())
            .flatten()
            .and_then(|retry| {
                let attempts = u32::try_from(delivery.attempts.len()).unwrap_or(u32::MAX);
                let age = now.saturating_duration_since(delivery.accepted_at);
                retry.next_delay(attempts, age, not_before, &mut self.rng)
            })
            // A wait that the clock cannot hold is one without end.
            .and_then(|delay| now.checked_add(delay));
        let Some(due) = due else {
            let cause = delivery.last_failure();
            return Settled::Failed(delivery, cause.unwrap_or(DeliveryErrorCause::Abandoned));
        };
        self.waiting.push(Reverse(Waiting {
            due,
            number: self.next_number,
            delivery,
        }));
        self.next_number += 1;
        Settled::Waits
    }

    /// Gives the permit of an attempt that was broken off back.
    pub(super) fn forget(&mut self, permit: Option<Permit>, now: Instant) {
        self.record(permit, Health::Unknown, now);
    }

    /// Takes everything out.
    pub(super) fn drain(&mut self) -> Vec<Delivery> {
        let waiting = self
            .waiting
            .drain()
            .map(|Reverse(waiting)| waiting.delivery);
        self.ready.drain(..).chain(waiting).collect()
    }

    fn record(&mut self, permit: Option<Permit>, health: Health, now: Instant) {
        let (Some(breaker), Some(permit)) = (&mut self.breaker, permit) else {
            return;
        };
        let before = breaker.state();
        breaker.record(permit, health, now);
        match (before, breaker.state()) {
            (CircuitState::Closed, CircuitState::Open) => {
                tracing::warn!("the circuit opened: the endpoint is failing");
            }
            (CircuitState::HalfOpen, CircuitState::Closed) => {
                tracing::info!("the circuit closed: the endpoint has recovered");
            }
            _ => {}
        }
    }
}

/// A delivery that waits for its next attempt, ordered by when it is due.
#[derive(Debug)]
struct Waiting {
    due: Instant,
    number: u64,
    delivery: Delivery,
}

impl Waiting {
    fn key(&self) -> (Instant, u64) {
        (self.due, self.number)
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}
