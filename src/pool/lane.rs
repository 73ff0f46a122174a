//! One endpoint's share of the work: what waits for it, and what limits its attempts. It decides,
//! and leaves it to others to act.

mod limit;
mod probes;
mod queue;
mod rate;

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

use super::delivery::{Delivery, Failure, cause_of};
use super::permits::Permits;
use crate::circuit_breaker::{
    Admission, CircuitBreaker, CircuitBreakerConfig, CircuitState, Health, Permit,
};
use crate::retry::{Budget, RetryBudget, RetryPolicy, with_jitter};
use crate::{Attempt, DeliveryErrorCause, Endpoint, EndpointId, ErrorKind, Verdict};
use limit::Limit;
use probes::Probes;
use queue::{Queue, Source};
use rate::Rate;

pub(crate) use rate::RateLimit;

/// How long a stop waits for endpoints that ask for no requests for a time. Many ask for a second or
/// two; what they ask for must not decide when a program ends.
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// A pause of more than this is reported. Many endpoints ask for less when they are busy.
const LONG_PAUSE: Duration = Duration::from_secs(60);

/// One endpoint, its deliveries that no worker holds, and what limits its attempts.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(super) id: EndpointId,
    pub(super) endpoint: Endpoint,
    pub(super) permits: Arc<Permits>,
    group: Option<Arc<str>>,
    retry: Option<RetryPolicy>,
    budget: Option<Budget>,
    breaker: Option<CircuitBreaker>,
    rate: Option<Rate>,
    limit: Limit,
    /// Until when the endpoint asked for no requests, with `Retry-After`.
    paused_until: Option<Instant>,
    /// The end of the pause that was reported last.
    reported_pause: Option<Instant>,
    /// Whether a long pause has begun that was not reported yet.
    has_new_pause: bool,
    /// Since when nothing new is accepted.
    draining_since: Option<Instant>,
    /// Attempts under way at the present URL.
    in_flight: u32,
    /// Attempts under way at earlier URLs.
    in_flight_elsewhere: u32,
    stops_when_gone: bool,
    /// Whether the endpoint said that it no longer exists. Nothing waits in the lane then.
    is_gone: bool,
    /// Counts the changes of the endpoint: what the old one replied says nothing about the new one.
    version: u64,
    /// The version with which the present URL came.
    version_of_url: u64,
    queue: Queue,
    probes: Probes,
    rng: fastrand::Rng,
}

/// The settings of a lane, checked.
#[derive(Debug, Clone)]
pub(crate) struct LaneSettings {
    pub(crate) queue_size: usize,
    pub(crate) retry: Option<RetryPolicy>,
    pub(crate) budget: Option<RetryBudget>,
    pub(crate) breaker: Option<CircuitBreakerConfig>,
    pub(crate) rate: Option<RateLimit>,
    pub(crate) in_flight: (u32, u32),
    /// Whether an endpoint that says that it is gone gets nothing more.
    pub(crate) stops_when_gone: bool,
    /// With which lanes it shares a limit.
    pub(crate) group: Option<Arc<str>>,
}

/// What a worker does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Make an attempt, and hand it to [`Lane::settle`].
    Attempt(Box<Delivery>, Option<Permit>),
    /// End a delivery.
    Fail(Box<Delivery>, Failure),
    /// Ask again at a time, or when something has changed.
    Wait(Option<Instant>),
    /// As many attempts are under way as may be.
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

impl Lane {
    pub(crate) fn new(
        id: EndpointId,
        endpoint: Endpoint,
        permits: Arc<Permits>,
        settings: LaneSettings,
    ) -> Self {
        let (min, max) = settings.in_flight;
        Self {
            id,
            endpoint,
            permits,
            group: settings.group,
            retry: settings.retry,
            budget: settings.budget.map(Budget::new),
            breaker: settings.breaker.map(CircuitBreaker::with_checked),
            rate: settings.rate.map(Rate::new),
            limit: Limit::new(min, max),
            paused_until: None,
            reported_pause: None,
            has_new_pause: false,
            draining_since: None,
            in_flight: 0,
            in_flight_elsewhere: 0,
            stops_when_gone: settings.stops_when_gone,
            is_gone: false,
            version: 0,
            version_of_url: 0,
            queue: Queue::new(),
            probes: Probes::new(),
            rng: fastrand::Rng::new(),
        }
    }

    /// Changes the endpoint, which is then expected to exist, and returns the old one. What was
    /// learned about the old one is forgotten if the URL is another, but for a circuit that was
    /// opened by hand.
    pub(super) fn change_endpoint(&mut self, endpoint: Endpoint) -> Endpoint {
        let old = std::mem::replace(&mut self.endpoint, endpoint);
        self.version += 1;
        self.is_gone = false;
        self.end_pause();
        if old.url() != self.endpoint.url() {
            self.version_of_url = self.version;
            self.in_flight_elsewhere += std::mem::take(&mut self.in_flight);
            self.limit.reset();
            if let Some(breaker) = self.breaker.as_mut().filter(|it| !it.is_open_by_hand()) {
                breaker.close();
            }
        }
        old
    }

    /// Changes the settings, and returns the retry policy that was replaced. What was learned about
    /// the endpoint stays where the settings that it belongs to are the same.
    pub(super) fn reconfigure(&mut self, settings: LaneSettings) -> Option<RetryPolicy> {
        let (min, max) = settings.in_flight;
        self.limit.set_bounds(min, max);
        self.stops_when_gone = settings.stops_when_gone;
        self.group = settings.group;
        if self.budget.as_ref().map(Budget::config) != settings.budget.as_ref() {
            self.budget = settings.budget.map(Budget::new);
        }
        if self.breaker.as_ref().map(CircuitBreaker::config) != settings.breaker.as_ref() {
            self.breaker = settings.breaker.map(CircuitBreaker::with_checked);
        }
        if self.rate.as_ref().map(Rate::limit) != settings.rate {
            self.rate = settings.rate.map(Rate::new);
        }
        std::mem::replace(&mut self.retry, settings.retry)
    }

    pub(super) fn push(&mut self, delivery: Box<Delivery>) {
        self.queue.push(delivery);
    }

    pub(super) fn len(&self) -> usize {
        self.queue.len()
    }

    pub(super) fn is_gone(&self) -> bool {
        self.is_gone
    }

    pub(super) fn group(&self) -> Option<&Arc<str>> {
        self.group.as_ref()
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn retry(&self) -> Option<&RetryPolicy> {
        self.retry.as_ref()
    }

    /// Attempts under way, whatever their URL.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight + self.in_flight_elsewhere
    }

    /// Whether an attempt at a version of the endpoint is one at the present URL.
    pub(super) fn is_at_url(&self, version: u64) -> bool {
        version >= self.version_of_url
    }

    fn ended(&mut self, version: u64) {
        let in_flight = if self.is_at_url(version) {
            &mut self.in_flight
        } else {
            &mut self.in_flight_elsewhere
        };
        *in_flight = in_flight.saturating_sub(1);
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit.current()
    }

    /// Whether asking for the next attempt makes sense: something waits, and the limit allows it.
    pub(super) fn may_go(&self) -> bool {
        self.len() > 0 && self.in_flight < self.limit.current()
    }

    pub(super) fn circuit_state(&self) -> Option<CircuitState> {
        self.breaker.as_ref().map(CircuitBreaker::state)
    }

    /// Opens or closes the circuit by hand. Returns `false` if there is no breaker.
    pub(super) fn switch_circuit(&mut self, open: bool) -> bool {
        match &mut self.breaker {
            Some(breaker) if open => breaker.open(),
            Some(breaker) => breaker.close(),
            None => return false,
        }
        true
    }

    /// Continues the circuit where another one of the endpoint stood, unless it was opened by hand. Returns `false` if
    /// there is no breaker.
    pub(super) fn resume_circuit(&mut self, next_open_for: Duration, now: Instant) -> bool {
        let Some(breaker) = &mut self.breaker else {
            return false;
        };
        if !breaker.is_open_by_hand() {
            breaker.resume(next_open_for, now);
        }
        true
    }

    /// For how long the circuit opens if its probes fail; `None` if there is nothing to probe.
    pub(super) fn next_open_for(&self) -> Option<Duration> {
        let breaker = self.breaker.as_ref().filter(|it| !it.is_open_by_hand())?;
        is_probed(breaker.state()).then(|| breaker.next_open_for())
    }

    /// Closes the circuit, and forgets until when the endpoint asked for no requests.
    pub(super) fn unblock(&mut self) {
        self.end_pause();
        self.queue.release_put_off();
        if let Some(breaker) = &mut self.breaker {
            breaker.close();
        }
    }

    /// Takes the news that the endpoint has asked for no requests for a long time.
    pub(super) fn take_new_pause(&mut self) -> bool {
        std::mem::take(&mut self.has_new_pause)
    }

    /// Until when nothing is sent, as far as that is known.
    pub(super) fn blocked_until(&self, now: Instant) -> Option<Instant> {
        let circuit = self.breaker.as_ref().and_then(CircuitBreaker::open_until);
        let blocked = [circuit, self.paused_until].into_iter().flatten().max();
        blocked.filter(|until| *until > now)
    }

    /// Decides what a worker does next. A lane that is being drained does not wait for an open
    /// circuit, and not for long because the endpoint asked for it.
    pub(super) fn take(&mut self, now: Instant, draining: bool) -> Next {
        let patience = draining.then(|| self.patience(now));
        self.queue.advance(now);
        if let Some(limit) = patience
            && let Some(delivery) = self.queue.take_put_off_beyond(limit)
        {
            return self.fail_put_off(delivery, now);
        }
        let due = self.queue.next_due();
        if !self.queue.has_due() {
            return due.map_or(Next::Empty, |due| Next::Wait(Some(due)));
        }
        if self.in_flight >= self.limit.current() {
            return Next::Busy;
        }
        if let Some(until) = self.paused_until.filter(|until| *until > now) {
            let cause = DeliveryErrorCause::RetryAfter;
            let is_too_long = patience.is_some_and(|limit| until > limit);
            return if self.retry.is_none() || is_too_long {
                self.fail_oldest(Some(cause), now)
            } else {
                self.put_off(earlier(due, Some(until)), Some(cause), now)
            };
        }
        if let Some(until) = self.rate.as_ref().and_then(|rate| rate.blocked_until(now)) {
            return Next::Wait(earlier(due, Some(until)));
        }
        let circuit = self.circuit_state();
        // The circuit breaker bounds the probes, so that the budget does not.
        let chosen = if circuit.is_some_and(is_probed) {
            let is_first = circuit == Some(CircuitState::Open);
            self.queue.choose_first(self.probes.next(is_first))
        } else {
            self.queue.choose(self.budget.as_ref(), now)
        };
        let Some(source) = chosen else {
            let due_since = self.queue.retries_due_since();
            let trickle = self.budget.as_ref().zip(due_since);
            let trickle = trickle.and_then(|(budget, since)| budget.trickle_at(since));
            return self.put_off(earlier(due, trickle), None, now);
        };
        let permit = match self.breaker.as_mut().map(|breaker| breaker.admit(now)) {
            None => None,
            Some(Admission::Admitted(permit)) => Some(permit),
            Some(Admission::Refused { retry_at }) => {
                let is_open = self.circuit_state() == Some(CircuitState::Open);
                let cause = Some(DeliveryErrorCause::CircuitOpen);
                return if self.retry.is_none() || (draining && is_open) {
                    self.fail_oldest(cause, now)
                } else {
                    let probe_at = retry_at.map(|at| self.probe_at(at, now));
                    self.put_off(earlier(due, probe_at), cause, now)
                };
            }
        };
        let Some(mut delivery) = self.queue.take(source) else {
            return Next::Empty;
        };
        self.probes.sent(source);
        if let Some(budget) = &mut self.budget {
            match source {
                Source::Fresh => budget.sent_first(),
                Source::Retries => budget.sent_retry(now),
            }
        }
        if let Some(rate) = &mut self.rate {
            rate.began(now);
        }
        if self.retry.is_none() {
            // It will never wait again: its place is free for another.
            delivery.permit = None;
        }
        self.in_flight += 1;
        if self.circuit_state() == Some(CircuitState::HalfOpen) {
            // The ramp of the breaker is the stricter limit now, and this one must not fall behind.
            self.limit.restart();
        }
        self.limit.began(self.in_flight);
        Next::Attempt(delivery, permit)
    }

    /// When a lane that waits for room has to look at its queue: a delivery becomes too old then, or
    /// a retry is due that may.
    pub(super) fn overdue_at(&self) -> Option<Instant> {
        let expires_at = self.next_overdue().map(|(at, _)| at);
        let next_due = self.max_age().and_then(|_| self.queue.next_due());
        earlier(expires_at, next_due)
    }

    /// Ends a delivery that has become too old while the lane waits for room.
    pub(super) fn fail_overdue(&mut self, now: Instant) -> Option<(Box<Delivery>, Failure)> {
        self.queue.advance(now);
        let (_, cause) = self.next_overdue().filter(|(at, _)| *at <= now)?;
        let delivery = match cause {
            Some(_) => self.queue.take_oldest(),
            None => self.queue.take(Source::Retries),
        };
        Some(self.too_old(delivery?, cause, now))
    }

    /// When the next delivery becomes too old for its next attempt, and what keeps it from that
    /// besides room. If it is nothing, this is about retries: a first attempt is made however late it
    /// is, as one that waits for a worker is.
    fn next_overdue(&self) -> Option<(Instant, Option<DeliveryErrorCause>)> {
        let max_age = self.max_age()?;
        let oldest = self.queue.oldest()?.checked_add(max_age)?;
        if self.circuit_state() == Some(CircuitState::Open) {
            return Some((oldest, Some(DeliveryErrorCause::CircuitOpen)));
        }
        if self.paused_until.is_some_and(|until| until > oldest) {
            return Some((oldest, Some(DeliveryErrorCause::RetryAfter)));
        }
        let retry = Instant::from(self.queue.oldest_retry()?);
        Some((retry.checked_add(max_age)?, None))
    }

    fn max_age(&self) -> Option<Duration> {
        self.retry.as_ref().and_then(RetryPolicy::max_age)
    }

    /// Takes note of an attempt at a version of the endpoint, and decides what happens to its
    /// delivery. `retry_after` is the wait before the next attempt, if the retry policy allows one.
    pub(super) fn settle(
        &mut self,
        mut delivery: Box<Delivery>,
        version: u64,
        permit: Option<Permit>,
        attempt: &Attempt,
        retry_after: Option<Duration>,
        now: Instant,
    ) -> Settled {
        self.ended(version);
        let health = health(attempt);
        let is_probe = self.is_at_url(version) && self.circuit_state().is_some_and(is_probed);
        if is_probe && health != Health::Unknown {
            let worked = health == Health::Healthy;
            self.probes.ended(Source::of(&delivery), worked);
        }
        self.record(permit, health, now);
        let is_current = version == self.version;
        if is_current {
            self.learn(attempt, health);
            self.pause(attempt, now);
        }
        let verdict = attempt.verdict();
        if verdict == Verdict::Delivered {
            return Settled::Delivered(delivery);
        }
        if self.is_gone && verdict == Verdict::Retryable {
            return Settled::Failed(delivery, DeliveryErrorCause::Gone.into());
        }
        if verdict == Verdict::Gone && is_current && self.stops_when_gone && !self.is_gone {
            self.is_gone = true;
            return Settled::Gone(delivery, self.drain());
        }
        let wait = retry_after.filter(|_| verdict == Verdict::Retryable);
        // A wait that the clock cannot hold is one without end.
        let due = wait.and_then(|wait| Some((wait, now.checked_add(wait)?)));
        let Some((wait, due)) = due else {
            let failure = self.failure(cause_of(attempt), now);
            return Settled::Failed(delivery, failure);
        };
        delivery.keep(attempt, now);
        if is_asked_for(wait, attempt) {
            self.queue.put_off(delivery, due);
        } else {
            self.queue.push_retry(delivery, due);
        }
        Settled::Waits
    }

    /// Takes note of an attempt at a version of the endpoint that was interrupted.
    pub(super) fn forget(&mut self, version: u64, permit: Option<Permit>, now: Instant) {
        self.ended(version);
        self.record(permit, Health::Unknown, now);
    }

    /// Takes note of an attempt that has been under way for so long. If its response is overdue,
    /// the limit falls to its minimum; otherwise returns after how long it will be.
    pub(super) fn mark_stalled(&mut self, elapsed: Duration) -> Option<Duration> {
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
        self.queue.drain()
    }

    fn record(&mut self, permit: Option<Permit>, health: Health, now: Instant) {
        if let (Some(breaker), Some(permit)) = (&mut self.breaker, permit) {
            breaker.record(permit, health, now);
        }
    }

    fn learn(&mut self, attempt: &Attempt, health: Health) {
        match health {
            Health::Healthy => {
                self.limit.responded(attempt.elapsed);
                if let Some(budget) = &mut self.budget {
                    budget.got_healthy_response();
                }
            }
            Health::Failing => self.limit.failed(),
            Health::Unknown => {}
        }
    }

    /// Sends nothing until the time that the endpoint asked for.
    fn pause(&mut self, attempt: &Attempt, now: Instant) {
        let is_asked = matches!(
            attempt.status(),
            Some(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
        );
        if let Some(wait) = attempt.retry_after().filter(|_| is_asked) {
            let until = now.checked_add(with_jitter(wait, self.rng.f64()));
            self.paused_until = self.paused_until.max(until);
            let asked_until = now.checked_add(wait);
            // One that prolongs a pause by little is no news.
            let known = self.reported_pause.max(Some(now));
            if asked_until > known.and_then(|known| known.checked_add(LONG_PAUSE)) {
                self.reported_pause = asked_until;
                self.has_new_pause = true;
            }
        }
    }

    fn end_pause(&mut self) {
        self.paused_until = None;
        self.reported_pause = None;
    }

    /// Until when a lane that is being drained waits because the endpoint asked for it.
    fn patience(&mut self, now: Instant) -> Instant {
        *self.draining_since.get_or_insert(now) + STOP_PATIENCE
    }

    /// When a circuit that may be probed from some time on is probed if nothing else wakes the
    /// lane. Endpoints that failed together should not be probed together.
    fn probe_at(&mut self, earliest: Instant, now: Instant) -> Instant {
        let spread = earliest.saturating_duration_since(now) / 10;
        earliest + spread.mul_f64(self.rng.f64())
    }

    /// Waits, unless the oldest delivery has become too old for that. Then it fails for a cause, or
    /// without one for that of its last attempt.
    fn put_off(
        &mut self,
        wake_at: Option<Instant>,
        cause: Option<DeliveryErrorCause>,
        now: Instant,
    ) -> Next {
        let expires_at = self
            .max_age()
            .zip(self.queue.oldest())
            .and_then(|(max_age, oldest)| oldest.checked_add(max_age));
        if expires_at.is_some_and(|at| at <= now) {
            self.fail_oldest(cause, now)
        } else {
            Next::Wait(earlier(wake_at, expires_at))
        }
    }

    fn fail_oldest(&mut self, cause: Option<DeliveryErrorCause>, now: Instant) -> Next {
        let Some(delivery) = self.queue.take_oldest() else {
            return Next::Empty;
        };
        let (delivery, failure) = self.too_old(delivery, cause, now);
        Next::Fail(delivery, failure)
    }

    /// A delivery that fails for a cause, or without one for that of its last attempt.
    fn too_old(
        &self,
        delivery: Box<Delivery>,
        cause: Option<DeliveryErrorCause>,
        now: Instant,
    ) -> (Box<Delivery>, Failure) {
        let cause = cause.or_else(|| delivery.last_failure());
        let failure = self.failure(cause.unwrap_or(DeliveryErrorCause::Abandoned), now);
        (delivery, failure)
    }

    /// Fails a delivery whose next attempt the endpoint has put off for too long.
    fn fail_put_off(&self, delivery: Box<Delivery>, now: Instant) -> Next {
        let due = Instant::from(delivery.due);
        let failure = Failure {
            cause: DeliveryErrorCause::RetryAfter,
            blocked_until: self.blocked_until(now).max(Some(due)),
        };
        Next::Fail(delivery, failure)
    }

    fn failure(&self, cause: DeliveryErrorCause, now: Instant) -> Failure {
        Failure {
            cause,
            blocked_until: self.blocked_until(now),
        }
    }
}

/// Whether attempts find out whether an endpoint has recovered.
fn is_probed(circuit: CircuitState) -> bool {
    circuit != CircuitState::Closed
}

/// What an attempt says about the health of its endpoint.
fn health(attempt: &Attempt) -> Health {
    match attempt.verdict() {
        _ if attempt.error_kind().is_some_and(ErrorKind::is_local) => Health::Unknown,
        Verdict::Retryable => Health::Failing,
        _ if attempt.status().is_some() => Health::Healthy,
        // The request was never sent.
        _ => Health::Unknown,
    }
}

/// Whether it is the endpoint that asked for a wait, and not the retry policy that wants a longer one.
fn is_asked_for(wait: Duration, attempt: &Attempt) -> bool {
    let asked = attempt.retry_after().filter(|asked| !asked.is_zero());
    asked.is_some_and(|asked| wait <= with_jitter(asked, 1.0))
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    [one, other].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AttemptError, Phases, Response};

    fn attempt(verdict: Verdict, result: Result<u16, ErrorKind>) -> Attempt {
        Attempt {
            number: 1,
            started_at: jiff::Timestamp::UNIX_EPOCH,
            elapsed: Duration::ZERO,
            phases: Phases::default(),
            verdict,
            result: match result {
                Ok(status) => Ok(Response::new(StatusCode::from_u16(status).unwrap())),
                Err(kind) => Err(AttemptError::new(kind, kind)),
            },
        }
    }

    #[test]
    fn a_pause_is_news_if_it_ends_more_than_a_minute_later_than_was_known() {
        let settings = crate::LaneConfig::default().settings().unwrap();
        let endpoint = Endpoint::new("http://receiver.test/").unwrap();
        let mut lane = Lane::new("a".into(), endpoint, Permits::new(1, None), settings);
        let now = Instant::now();
        let mut is_news = |seconds| {
            let mut asking = attempt(Verdict::Retryable, Ok(429));
            if let Ok(response) = &mut asking.result {
                response.retry_after = Some(Duration::from_secs(seconds));
            }
            lane.pause(&asking, now);
            lane.take_new_pause()
        };
        for (seconds, expected) in [
            (60, false),
            (61, true),
            (121, false),
            (122, true),
            (61, false),
        ] {
            assert_eq!(is_news(seconds), expected, "{seconds}");
        }
        lane.unblock();
        lane.pause(&attempt(Verdict::Retryable, Ok(429)), now);
        assert!(!lane.take_new_pause());
    }

    #[test]
    fn an_endpoint_is_judged_only_by_what_it_did_itself() {
        for (verdict, result, expected) in [
            (Verdict::Delivered, Ok(204), Health::Healthy),
            (Verdict::Permanent, Ok(404), Health::Healthy),
            (Verdict::Gone, Ok(410), Health::Healthy),
            (Verdict::Retryable, Ok(503), Health::Failing),
            (Verdict::Retryable, Err(ErrorKind::Dns), Health::Failing),
            (Verdict::Retryable, Err(ErrorKind::Local), Health::Unknown),
            (Verdict::Permanent, Err(ErrorKind::Local), Health::Unknown),
            (
                Verdict::Permanent,
                Err(ErrorKind::InvalidRequest),
                Health::Unknown,
            ),
        ] {
            assert_eq!(health(&attempt(verdict, result)), expected, "{result:?}");
        }
    }
}
