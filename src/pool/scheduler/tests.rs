//! A scheduler by itself: what it lets begin, and when.

mod changes;
mod circuits;
mod groups;
mod histories;
mod hosts;
mod pauses;
mod retries;
mod speeds;
mod turns;

use bytes::Bytes;
use http::StatusCode;

use super::*;
use crate::circuit_breaker::CircuitBreakerConfig;
use crate::pool::permits::Permits;
use crate::pool::{LaneSettings, RateLimit};
use crate::retry::{Exponential, RetryBudget};
use crate::{Message, Response, Verdict};

const FAST: Duration = Duration::from_millis(10);
const SECOND: Duration = Duration::from_secs(1);

fn limits(workers: usize, max_slow: usize) -> Limits {
    Limits {
        workers,
        isolation: Some(Isolation {
            slow_after: SECOND,
            max_slow,
        }),
        per_host: Some(64),
        group_parts: Some(4),
    }
}

fn settings(in_flight: (u32, u32)) -> LaneSettings {
    LaneSettings {
        queue_size: 10_000,
        retry: Some(RetryPolicy::new(
            Exponential::new(SECOND, 10 * SECOND).unwrap(),
        )),
        budget: Some(RetryBudget::default()),
        breaker: None,
        rate: None,
        in_flight,
        stops_when_gone: true,
        group: None,
    }
}

fn with_breaker(config: CircuitBreakerConfig) -> LaneSettings {
    LaneSettings {
        breaker: Some(config),
        ..settings((1, 32))
    }
}

fn endpoint(host: usize) -> Endpoint {
    Endpoint::new(format!("http://host{host}.example/")).unwrap()
}

fn lane(name: &str, host: usize, settings: LaneSettings) -> Lane {
    Lane::new(
        name.into(),
        endpoint(host),
        Permits::new(10_000, None),
        settings,
    )
}

fn delivery(message: Message) -> Box<Delivery> {
    let permit = Permits::new(1, None).try_acquire().unwrap();
    Delivery::new("a", message, permit, None)
}

fn attempt(status: u16, elapsed: Duration) -> Attempt {
    Attempt {
        number: 1,
        started_at: jiff::Timestamp::now(),
        elapsed,
        phases: crate::Phases::default(),
        verdict: Verdict::of_status(StatusCode::from_u16(status).unwrap()),
        result: Ok(Response {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: None,
            location: None,
            body_head: Bytes::new(),
        }),
    }
}

/// A refusal that asks for no requests for a time.
fn pausing(status: u16, wait: Duration) -> Attempt {
    let mut attempt = attempt(status, FAST);
    if let Ok(response) = &mut attempt.result {
        response.retry_after = Some(wait);
    }
    attempt
}

/// An attempt whose request could not be made.
fn unsent() -> Attempt {
    let mut attempt = attempt(200, FAST);
    let error = crate::ErrorKind::InvalidRequest;
    attempt.result = Err(crate::AttemptError::new(error, error));
    attempt.verdict = Verdict::Permanent;
    attempt
}

/// A scheduler under test, and what it let begin.
struct Bench {
    scheduler: Scheduler,
    now: Instant,
    under_way: Vec<(EndpointId, Box<Delivery>, AttemptPermit)>,
    rng: fastrand::Rng,
    /// When the last delivery that has to wait is due.
    last_due: Option<Instant>,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        Self {
            scheduler: Scheduler::new(limits),
            now: Instant::now(),
            under_way: Vec::new(),
            rng: fastrand::Rng::with_seed(1),
            last_due: None,
        }
    }

    /// Adds a lane with so many deliveries.
    fn add(&mut self, name: &str, host: usize, in_flight: (u32, u32), deliveries: usize) -> LaneId {
        let id = self.scheduler.add(lane(name, host, settings(in_flight)));
        for _ in 0..deliveries {
            self.scheduler.push(id, delivery(Message::from("x")));
        }
        id
    }

    /// Begins what may begin, and names the lanes in order.
    fn begin(&mut self) -> Vec<String> {
        let mut begun = Vec::new();
        loop {
            let Some(work) = self.scheduler.pick(self.now, false) else {
                if self.scheduler.has_work() {
                    // There are more lanes than a worker looks at at once.
                    continue;
                }
                return begun;
            };
            let Work::Attempt {
                id,
                delivery,
                permit,
                ..
            } = work
            else {
                panic!("{work:?}");
            };
            begun.push(id.to_string());
            self.under_way.push((id, delivery, permit));
        }
    }

    fn end(&mut self, name: &str, status: u16, elapsed: Duration) {
        let index = (self.under_way.iter())
            .position(|(id, ..)| id.as_str() == name)
            .unwrap();
        self.settle(index, &attempt(status, elapsed));
    }

    fn settle(&mut self, index: usize, attempt: &Attempt) -> Settled {
        let (_, delivery, permit) = self.under_way.remove(index);
        let age = self
            .now
            .saturating_duration_since(delivery.accepted_at.into());
        let retry_after = permit.retry.as_ref().and_then(|retry| {
            let hint = attempt.retry_after();
            retry.next_delay(delivery.next_attempt(), age, hint, self.rng.f64())
        });
        self.last_due = retry_after.map(|wait| self.now + wait);
        (self.scheduler).settle(permit, delivery, attempt, retry_after, self.now)
    }

    /// Lets every attempt under way be one that takes this long, and longer.
    fn stall(&mut self, elapsed: Duration) {
        for (_, _, permit) in &mut self.under_way {
            self.scheduler.check_late(permit, elapsed);
        }
    }

    /// Makes a lane quick.
    fn prove(&mut self, name: &str, host: usize, in_flight: (u32, u32)) -> LaneId {
        let id = self.add(name, host, in_flight, 1);
        assert_eq!(self.begin(), [name]);
        self.end(name, 200, FAST);
        id
    }
}
