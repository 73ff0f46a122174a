//! What waits for one endpoint, and in which order it may go: the decisions, without the doing.

use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::budget::Budget;
use super::delivery::{Delivery, Failure};
use super::limit::Limit;
use super::room::Places;
use crate::circuit_breaker::{Admission, CircuitBreaker, CircuitState, Health, Permit};
use crate::retry::{RetryPolicy, with_jitter};
use crate::{Attempt, DeliveryErrorCause, Endpoint, EndpointId, Verdict, telemetry};

/// One endpoint, its deliveries that no worker holds, and what limits its attempts.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(super) id: EndpointId,
    pub(super) endpoint: Endpoint,
    pub(super) places: Arc<Places>,
    retry: Option<RetryPolicy>,
    budget: Option<Budget>,
    pub(super) breaker: Option<CircuitBreaker>,
    limit: Limit,
    /// Until when the endpoint asked for no requests, with `Retry-After`.
    paused_until: Option<Instant>,
    in_flight: u32,
    stops_when_gone: bool,
    /// Whether the endpoint said that it does not exist any more. Nothing waits in the lane then.
    is_gone: bool,
    /// Counts the changes of the endpoint: what an old one answered says nothing about this one.
    version: u64,
    /// Deliveries whose first attempt is due, the oldest in front.
    fresh: VecDeque<Box<Delivery>>,
    /// Deliveries whose next attempt is due, the oldest on top.
    retries: BinaryHeap<Reverse<Again>>,
    /// Deliveries whose next attempt is not due yet, the earliest on top.
    waiting: BinaryHeap<Reverse<Again>>,
    /// Tells apart deliveries of the same time: first come, first served.
    next_number: u64,
    rng: fastrand::Rng,
}

/// The settings of a lane, checked.
#[derive(Debug)]
pub(crate) struct LaneParts {
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) budget: Option<super::RetryBudget>,
    pub(crate) breaker: Option<CircuitBreaker>,
    pub(crate) in_flight: (u32, u32),
    /// Whether an endpoint that says that it is gone gets nothing more.
    pub(crate) stops_when_gone: bool,
}

/// What a worker is to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Make an attempt, and hand it to [`Lane::settle`].
    Attempt(Box<Delivery>, Option<Permit>),
    /// End a delivery.
    Fail(Box<Delivery>, Failure),
    /// Ask again at a time, or when something has changed.
    Wait(Option<Instant>),
    /// As many attempts as may be are under way.
    Busy,
    /// Nothing is left.
    Empty,
}

/// What became of a delivery after an attempt.
#[derive(Debug)]
pub(super) enum Settled {
    Delivered(Box<Delivery>),
    Failed(Box<Delivery>, Failure),
    /// It waits in the lane for its next attempt.
    Waits,
    /// It failed because the endpoint is gone, and so does everything that waited.
    Gone(Box<Delivery>, Vec<Delivery>),
}

/// Which delivery is the next one.
#[derive(Debug, Clone, Copy)]
enum Source {
    Fresh,
    Retries,
}

impl Lane {
    pub(crate) fn new(
        id: EndpointId,
        endpoint: Endpoint,
        places: Arc<Places>,
        parts: LaneParts,
    ) -> Self {
        let (min, max) = parts.in_flight;
        Self {
            id,
            endpoint,
            places,
            retry: parts.retry,
            budget: parts.budget.map(Budget::new),
            breaker: parts.breaker,
            limit: Limit::new(min, max),
            paused_until: None,
            in_flight: 0,
            stops_when_gone: parts.stops_when_gone,
            is_gone: false,
            version: 0,
            fresh: VecDeque::new(),
            retries: BinaryHeap::new(),
            waiting: BinaryHeap::new(),
            next_number: 0,
            rng: fastrand::Rng::new(),
        }
    }

    /// Changes the endpoint, which is then taken to be there again.
    pub(super) fn change_endpoint(&mut self, endpoint: Endpoint) {
        self.endpoint = endpoint;
        self.version += 1;
        self.is_gone = false;
        self.paused_until = None;
    }

    /// Changes the settings. What was learned about the endpoint stays where the settings that it
    /// belongs to are the same.
    pub(super) fn reconfigure(&mut self, parts: LaneParts) {
        let (min, max) = parts.in_flight;
        self.limit.set_bounds(min, max);
        self.retry = parts.retry;
        self.stops_when_gone = parts.stops_when_gone;
        if self.budget.as_ref().map(Budget::config) != parts.budget.as_ref() {
            self.budget = parts.budget.map(Budget::new);
        }
        let config = CircuitBreaker::config;
        if self.breaker.as_ref().map(config) != parts.breaker.as_ref().map(config) {
            self.breaker = parts.breaker;
        }
    }

    pub(super) fn push(&mut self, delivery: Box<Delivery>) {
        self.fresh.push_back(delivery);
    }

    pub(super) fn len(&self) -> usize {
        self.fresh.len() + self.retries.len() + self.waiting.len()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit.current()
    }

    /// Whether asking for the next attempt makes sense: something is there, and there is room.
    pub(super) fn may_go(&self) -> bool {
        self.len() > 0 && self.in_flight < self.limit.current()
    }

    pub(super) fn circuit_state(&self) -> Option<CircuitState> {
        self.breaker.as_ref().map(CircuitBreaker::state)
    }

    /// Until when nothing is sent, as far as that is known.
    pub(super) fn blocked_until(&self, now: Instant) -> Option<Instant> {
        let circuit = self.breaker.as_ref().and_then(CircuitBreaker::open_until);
        let blocked = [circuit, self.paused_until].into_iter().flatten().max();
        blocked.filter(|until| *until > now)
    }

    /// Decides what a worker does next. A lane that is being drained does not wait for an open
    /// circuit.
    pub(super) fn take(&mut self, now: Instant, draining: bool) -> Next {
        self.collect_due(now);
        let due = self.waiting.peek().map(|next| next.0.due);
        if self.fresh.is_empty() && self.retries.is_empty() {
            return due.map_or(Next::Empty, |due| Next::Wait(Some(due)));
        }
        if self.in_flight >= self.limit.current() {
            return Next::Busy;
        }
        let Some(source) = self.choose(now) else {
            let trickle = self.budget.as_ref().and_then(Budget::next_trickle);
            return self.put_off(now, earlier(due, trickle), Delivery::last_failure);
        };
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            return if self.retry.is_none() {
                self.fail_oldest(DeliveryErrorCause::RetryAfter, now)
            } else {
                self.put_off(now, earlier(due, Some(until)), |delivery| {
                    delivery
                        .last_failure()
                        .or(Some(DeliveryErrorCause::RetryAfter))
                })
            };
        }
        let permit = match self.breaker.as_mut().map(|breaker| breaker.admit(now)) {
            None => None,
            Some(Admission::Admitted(permit)) => Some(permit),
            Some(Admission::Refused { retry_at }) => {
                let is_open = self.circuit_state() == Some(CircuitState::Open);
                return if self.retry.is_none() || (draining && is_open) {
                    self.fail_oldest(DeliveryErrorCause::CircuitOpen, now)
                } else {
                    let probe_at = retry_at.map(|at| self.probe_at(at, now));
                    self.put_off(now, earlier(due, probe_at), |_| None)
                };
            }
        };
        let Some(mut delivery) = self.remove(source) else {
            return Next::Empty;
        };
        if let Some(budget) = &mut self.budget {
            match source {
                Source::Fresh => budget.sent_first(),
                Source::Retries => budget.sent_retry(now),
            }
        }
        if self.retry.is_none() {
            // It will never wait again: its place is free for another.
            delivery.room = None;
        }
        self.in_flight += 1;
        if self.circuit_state() == Some(CircuitState::HalfOpen) {
            // The ramp of the breaker is the stricter limit now, and this one must not fall behind.
            self.limit.restart();
        }
        self.limit.began(self.in_flight);
        Next::Attempt(delivery, permit)
    }

    /// Takes note of an attempt at a version of the endpoint, and decides what becomes of its
    /// delivery.
    pub(super) fn settle(
        &mut self,
        mut delivery: Box<Delivery>,
        version: u64,
        permit: Option<Permit>,
        attempt: Attempt,
        now: Instant,
    ) -> Settled {
        let verdict = attempt.verdict();
        let health = health(&attempt);
        match health {
            Health::Healthy => {
                self.limit.answered(attempt.elapsed);
                if let Some(budget) = &mut self.budget {
                    budget.answered();
                }
            }
            Health::Failing => self.limit.failed(),
            Health::Unknown => {}
        }
        self.in_flight = self.in_flight.saturating_sub(1);
        self.record(permit, health, now);

        let not_before = attempt.retry_after();
        if version == self.version {
            self.pause(&attempt, now);
        }
        let number = attempt.number;
        keep(&mut delivery, attempt);
        if verdict == Verdict::Delivered {
            return Settled::Delivered(delivery);
        }
        if self.is_gone && verdict == Verdict::Retryable {
            return Settled::Failed(delivery, DeliveryErrorCause::Gone.into());
        }
        let says_gone = verdict == Verdict::Gone && version == self.version;
        if says_gone && self.stops_when_gone && !self.is_gone {
            return self.end_as_gone(delivery);
        }
        let due = (verdict == Verdict::Retryable)
            .then_some(self.retry.as_ref())
            .flatten()
            .and_then(|retry| {
                let age = now.saturating_duration_since(delivery.accepted_at);
                retry.next_delay(number, age, not_before, &mut self.rng)
            })
            // A wait that the clock cannot hold is one without end.
            .and_then(|delay| now.checked_add(delay));
        let Some(due) = due else {
            let cause = delivery.last_failure();
            let cause = cause.unwrap_or(DeliveryErrorCause::Abandoned);
            return Settled::Failed(delivery, self.failure(cause, now));
        };
        self.waiting.push(Reverse(Again {
            order: (due, self.next_number),
            due,
            delivery,
        }));
        self.next_number += 1;
        Settled::Waits
    }

    /// Sends nothing until the time that the endpoint asked for.
    fn pause(&mut self, attempt: &Attempt, now: Instant) {
        let is_asked = matches!(
            attempt.status(),
            Some(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
        );
        if let Some(wait) = attempt.retry_after().filter(|_| is_asked) {
            let until = now.checked_add(with_jitter(wait, &mut self.rng));
            self.paused_until = self.paused_until.max(until);
        }
    }

    fn end_as_gone(&mut self, delivery: Box<Delivery>) -> Settled {
        self.is_gone = true;
        telemetry::endpoint_gone();
        tracing::warn!(
            { telemetry::ENDPOINT_ID } = self.id.as_traced(),
            { telemetry::SERVER_ADDRESS } = self.endpoint.url().host_str(),
            "the endpoint is gone, and gets no further messages"
        );
        Settled::Gone(delivery, self.drain())
    }

    /// Takes note of an attempt that was broken off.
    pub(super) fn forget(&mut self, permit: Option<Permit>, now: Instant) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.record(permit, Health::Unknown, now);
    }

    /// Takes note of an attempt that has been under way for so long. When the answer is overdue,
    /// the lane is left with its smallest limit; else it says when it will be.
    pub(super) fn stalls(&mut self, elapsed: Duration) -> Option<Duration> {
        match self.limit.patience() {
            Some(patience) if elapsed < patience => Some(patience),
            _ => {
                self.limit.stalled();
                None
            }
        }
    }

    /// Takes everything out.
    pub(super) fn drain(&mut self) -> Vec<Delivery> {
        let again = self.retries.drain().chain(self.waiting.drain());
        let again = again.map(|Reverse(again)| again.delivery);
        let fresh = self.fresh.drain(..);
        fresh.chain(again).map(|delivery| *delivery).collect()
    }

    fn collect_due(&mut self, now: Instant) {
        while self.waiting.peek().is_some_and(|next| next.0.due <= now) {
            let Some(Reverse(mut again)) = self.waiting.pop() else {
                return;
            };
            again.order.0 = again.delivery.accepted_at;
            self.retries.push(Reverse(again));
        }
    }

    /// What goes next: with a budget new messages, unless a retry is urgent, and retries as far as
    /// it allows; without one what has been due for longest. `None` when the budget has to wait.
    fn choose(&self, now: Instant) -> Option<Source> {
        let Some(retry) = self.retries.peek() else {
            return Some(Source::Fresh);
        };
        let fresh = self.fresh.front();
        let retry_first = match &self.budget {
            Some(budget) => {
                if budget.next_trickle().is_some_and(|at| at <= now) {
                    return Some(Source::Retries);
                }
                if fresh.is_none() && !budget.allows_retry() {
                    return None;
                }
                fresh.is_none()
            }
            None => fresh.is_none_or(|fresh| retry.0.due <= fresh.accepted_at),
        };
        Some(if retry_first {
            Source::Retries
        } else {
            Source::Fresh
        })
    }

    /// When a circuit that may be probed from some time on is probed if nothing else wakes the
    /// lane. Endpoints that failed together should not be probed together.
    fn probe_at(&mut self, earliest: Instant, now: Instant) -> Instant {
        let spread = earliest.saturating_duration_since(now) / 10;
        earliest + spread.mul_f64(self.rng.f64())
    }

    /// Waits, unless the oldest delivery has become too old to.
    fn put_off(
        &mut self,
        now: Instant,
        wake_at: Option<Instant>,
        cause: fn(&Delivery) -> Option<DeliveryErrorCause>,
    ) -> Next {
        let max_age = self.retry.as_ref().and_then(RetryPolicy::max_age);
        let (Some(max_age), Some(oldest)) = (max_age, self.oldest()) else {
            return Next::Wait(wake_at);
        };
        match oldest.checked_add(max_age) {
            Some(expires_at) if expires_at <= now => match self.remove_oldest() {
                Some(delivery) => {
                    let cause = cause(&delivery).unwrap_or(DeliveryErrorCause::CircuitOpen);
                    Next::Fail(delivery, self.failure(cause, now))
                }
                None => Next::Empty,
            },
            expires_at => Next::Wait(earlier(wake_at, expires_at)),
        }
    }

    fn fail_oldest(&mut self, cause: DeliveryErrorCause, now: Instant) -> Next {
        match self.remove_oldest() {
            Some(delivery) => Next::Fail(delivery, self.failure(cause, now)),
            None => Next::Empty,
        }
    }

    fn failure(&self, cause: DeliveryErrorCause, now: Instant) -> Failure {
        Failure {
            cause,
            blocked_until: self.blocked_until(now),
        }
    }

    /// When the oldest delivery whose attempt is due was accepted.
    fn oldest(&self) -> Option<Instant> {
        let fresh = self.fresh.front().map(|delivery| delivery.accepted_at);
        let retry = self
            .retries
            .peek()
            .map(|retry| retry.0.delivery.accepted_at);
        earlier(fresh, retry)
    }

    fn remove_oldest(&mut self) -> Option<Box<Delivery>> {
        let fresh = self.fresh.front().map(|delivery| delivery.accepted_at);
        let source = match self.retries.peek() {
            Some(retry) if fresh.is_none_or(|fresh| retry.0.delivery.accepted_at <= fresh) => {
                Source::Retries
            }
            _ => Source::Fresh,
        };
        self.remove(source)
    }

    fn remove(&mut self, source: Source) -> Option<Box<Delivery>> {
        match source {
            Source::Fresh => self.fresh.pop_front(),
            Source::Retries => self.retries.pop().map(|Reverse(retry)| retry.delivery),
        }
    }

    fn record(&mut self, permit: Option<Permit>, health: Health, now: Instant) {
        let (Some(breaker), Some(permit)) = (&mut self.breaker, permit) else {
            return;
        };
        let before = breaker.state();
        breaker.record(permit, health, now);
        match (before, breaker.state()) {
            (CircuitState::Closed, CircuitState::Open) => {
                tracing::warn!(
                    { telemetry::ENDPOINT_ID } = self.id.as_traced(),
                    { telemetry::SERVER_ADDRESS } = self.endpoint.url().host_str(),
                    "the circuit opened: the endpoint is failing"
                );
            }
            (CircuitState::HalfOpen, CircuitState::Closed) => {
                tracing::info!(
                    { telemetry::ENDPOINT_ID } = self.id.as_traced(),
                    { telemetry::SERVER_ADDRESS } = self.endpoint.url().host_str(),
                    "the circuit closed: the endpoint has recovered"
                );
            }
            _ => {}
        }
    }
}

/// What an attempt says about the health of its endpoint.
fn health(attempt: &Attempt) -> Health {
    match attempt.verdict() {
        Verdict::Retryable => Health::Failing,
        _ if attempt.status().is_some() => Health::Healthy,
        // The request was never sent: that says nothing about the endpoint.
        _ => Health::Unknown,
    }
}

/// Adds an attempt to the record of a delivery.
pub(super) fn keep(delivery: &mut Delivery, attempt: Attempt) {
    if let Some(last) = delivery.attempts.last_mut() {
        last.shorten_body();
    }
    delivery.attempts.push(attempt);
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    [one, other].into_iter().flatten().min()
}

/// A delivery that was tried before, in its place among others.
#[derive(Debug)]
struct Again {
    /// What it is ordered by: when it is due, or once it is, when it was accepted.
    order: (Instant, u64),
    due: Instant,
    delivery: Box<Delivery>,
}

impl PartialEq for Again {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Eq for Again {}

impl PartialOrd for Again {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Again {
    fn cmp(&self, other: &Self) -> Ordering {
        self.order.cmp(&other.order)
    }
}
