mod histories;

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
        while let Some(work) = self.scheduler.pick(self.now, false) {
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
        begun
    }

    fn end(&mut self, name: &str, status: u16, elapsed: Duration) {
        let index = (self.under_way.iter())
            .position(|(id, ..)| id.as_str() == name)
            .unwrap();
        self.settle(index, attempt(status, elapsed));
    }

    fn settle(&mut self, index: usize, attempt: Attempt) -> Settled {
        let (_, delivery, permit) = self.under_way.remove(index);
        let age = self
            .now
            .saturating_duration_since(delivery.accepted_at.into());
        let retry_after = permit.retry.as_ref().and_then(|retry| {
            let hint = attempt.retry_after();
            retry.next_delay(delivery.next_attempt(), age, hint, &mut self.rng)
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

#[test]
fn lanes_take_turns_however_much_waits_in_them() {
    let mut bench = Bench::new(limits(8, 8));
    let a = bench.prove("a", 1, (4, 4));
    let b = bench.prove("b", 2, (4, 4));
    for id in [a, a, a, a, a, b, b] {
        bench.scheduler.push(id, delivery(Message::from("x")));
    }
    assert_eq!(bench.begin(), ["a", "b", "a", "b", "a", "a"]);
}

#[test]
fn a_lane_begins_with_one_attempt_and_doubles() {
    let mut bench = Bench::new(limits(64, 8));
    bench.add("a", 1, (1, 32), 100);
    for expected in [1, 2, 4, 8, 16, 32, 32] {
        let begun = bench.begin().len();
        assert_eq!(begun, expected);
        for _ in 0..begun {
            bench.end("a", 200, FAST);
        }
    }
}

#[test]
fn a_stalled_attempt_gives_its_worker_back_and_its_lane_falls_to_one() {
    let mut bench = Bench::new(limits(4, 4));
    let dead = bench.prove("dead", 1, (1, 32));
    for _ in 0..100 {
        bench.scheduler.push(dead, delivery(Message::from("x")));
    }
    assert_eq!(bench.begin().len(), 2);
    bench.end("dead", 200, FAST);
    bench.end("dead", 200, FAST);
    assert_eq!(bench.begin().len(), 4);
    let healthy = bench.add("healthy", 9, (1, 32), 1);
    assert!(bench.begin().is_empty());

    bench.stall(SECOND);
    assert_eq!(bench.begin(), ["healthy"]);
    assert_eq!(bench.scheduler.lane(dead).unwrap().limit(), 1);
    assert_eq!(bench.scheduler.speed(dead), Some(Speed::Slow));
    for _ in 0..4 {
        bench.end("dead", 503, 30 * SECOND);
    }
    // Without a reply in time it gets one attempt, and no worker for it.
    assert_eq!(bench.begin(), ["dead"]);
    bench.end("healthy", 200, FAST);
    for _ in 0..50 {
        bench.scheduler.push(healthy, delivery(Message::from("x")));
    }
    assert_eq!(bench.begin().len(), 2);
}

#[test]
fn new_lanes_together_get_half_of_the_workers() {
    let mut bench = Bench::new(limits(8, 8));
    let proven = bench.prove("proven", 0, (8, 8));
    for host in 1..=8 {
        bench.add(&format!("new{host}"), host, (1, 32), 10);
    }
    assert_eq!(bench.begin().len(), 4);
    for _ in 0..10 {
        bench.scheduler.push(proven, delivery(Message::from("x")));
    }
    assert_eq!(bench.begin(), ["proven"; 4]);
}

#[test]
fn slow_lanes_never_take_a_worker() {
    let mut bench = Bench::new(limits(2, 3));
    for host in 1..=5 {
        let name = format!("slow{host}");
        bench.add(&name, host, (4, 4), 1);
        assert_eq!(bench.begin(), [name.as_str()]);
        bench.end(&name, 200, 2 * SECOND);
    }
    for id in bench.scheduler.lanes.keys().copied().collect::<Vec<_>>() {
        bench.scheduler.push(id, delivery(Message::from("x")));
    }
    assert_eq!(bench.begin().len(), 3);
    let quick = bench.add("quick", 9, (2, 2), 1);
    assert_eq!(bench.begin(), ["quick"]);
    bench.end("quick", 200, FAST);
    for _ in 0..5 {
        bench.scheduler.push(quick, delivery(Message::from("x")));
    }
    assert_eq!(bench.begin(), ["quick"; 2]);
}

#[test]
fn a_slow_lane_that_replies_quickly_again_is_quick_again() {
    let mut bench = Bench::new(limits(1, 1));
    let id = bench.add("a", 1, (1, 1), 3);
    bench.begin();
    bench.end("a", 200, 2 * SECOND);
    assert_eq!(bench.scheduler.speed(id), Some(Speed::Slow));
    bench.begin();
    bench.end("a", 200, FAST);
    assert_eq!(bench.scheduler.speed(id), Some(Speed::Quick));
}

#[test]
fn an_endpoint_that_turns_slow_loses_its_share_and_gets_it_back_when_it_recovers() {
    let mut bench = Bench::new(limits(64, 64));
    let id = bench.add("a", 1, (1, 32), 10_000);
    let limit = |bench: &Bench| bench.scheduler.lane(id).unwrap().limit();
    let rounds = |bench: &mut Bench, count, elapsed| {
        for _ in 0..count {
            for _ in 0..bench.begin().len() {
                bench.end("a", 200, elapsed);
            }
        }
    };
    rounds(&mut bench, 6, FAST);
    assert_eq!(limit(&bench), 32);

    // It still replies, but late: fewer at a time, and none of them with a worker.
    rounds(&mut bench, 1, 2 * SECOND);
    assert!(limit(&bench) < 32, "{}", limit(&bench));
    assert_eq!(bench.scheduler.speed(id), Some(Speed::Slow));
    // It does not reply at all for a while.
    assert!(!bench.begin().is_empty());
    bench.stall(10 * SECOND);
    assert_eq!(limit(&bench), 1);
    while !bench.under_way.is_empty() {
        bench.end("a", 200, 11 * SECOND);
    }
    assert_eq!(limit(&bench), 1);

    rounds(&mut bench, 40, FAST);
    assert_eq!(limit(&bench), 32);
    assert_eq!(bench.scheduler.speed(id), Some(Speed::Quick));
}

#[test]
fn lanes_of_one_host_share_its_limit_in_turn() {
    let mut bench = Bench::new(Limits {
        per_host: Some(2),
        ..limits(16, 16)
    });
    for name in ["a", "b", "c"] {
        bench.add(name, 1, (2, 2), 2);
    }
    bench.add("other", 2, (1, 1), 1);
    let mut begun = bench.begin();
    begun.sort();
    assert_eq!(begun, ["a", "b", "other"]);
    bench.end("a", 200, FAST);
    assert_eq!(bench.begin(), ["c"]);
}

#[test]
fn stalled_endpoints_of_a_host_leave_room_for_the_healthy_ones_there() {
    let mut bench = Bench::new(Limits {
        per_host: Some(8),
        ..limits(64, 64)
    });
    let healthy = bench.prove("healthy", 1, (1, 32));
    for number in 0..100 {
        bench.add(&format!("stalled{number}"), 1, (1, 32), 10);
    }
    // Six are new; as late ones they are slow, and six is more than the half that slow ones get.
    assert_eq!(bench.begin().len(), 6);
    bench.stall(SECOND);
    assert!(bench.begin().is_empty());
    for _ in 0..10 {
        bench.scheduler.push(healthy, delivery(Message::from("x")));
    }
    assert_eq!(bench.begin(), ["healthy", "healthy"]);
    bench.end("healthy", 200, FAST);
    assert_eq!(bench.begin(), ["healthy"]);
    // What waits at the host takes turns with the healthy one as soon as there is room.
    while let Some(index) = (bench.under_way.iter()).position(|(id, ..)| id.as_str() != "healthy") {
        bench.settle(index, attempt(503, 30 * SECOND));
    }
    let begun = bench.begin();
    assert!(begun.iter().any(|name| name.starts_with("stalled")));
    assert_eq!(bench.under_way.len(), 8);
}

#[test]
fn a_lane_with_another_host_no_longer_waits_for_the_old_one() {
    let mut bench = Bench::new(Limits {
        per_host: Some(1),
        ..limits(16, 16)
    });
    bench.add("a", 1, (1, 1), 1);
    let moved = bench.add("b", 1, (1, 1), 1);
    assert_eq!(bench.begin(), ["a"]);
    bench.scheduler.change(moved, endpoint(2), None);
    assert_eq!(bench.begin(), ["b"]);
    bench.end("a", 200, FAST);
    bench.end("b", 200, FAST);
    assert!(bench.scheduler.hosts.is_empty());
}

#[test]
fn new_messages_go_before_retries_and_retries_within_their_budget() {
    let mut bench = Bench::new(limits(4, 4));
    bench.add("a", 1, (1, 1), 40);
    // Every first attempt fails: ten retries are saved up, and each first attempt adds a fifth.
    for _ in 0..40 {
        assert_eq!(bench.begin(), ["a"]);
        bench.end("a", 503, FAST);
    }
    bench.now += 20 * SECOND;
    let mut retries = 0;
    loop {
        bench.scheduler.wake(bench.now);
        if bench.begin().is_empty() {
            break;
        }
        bench.end("a", 503, FAST);
        retries += 1;
    }
    assert_eq!(retries, 10);
    // Then one a second, however many are due.
    let last = bench.now;
    while bench.now < last + SECOND {
        assert!(bench.begin().is_empty());
        bench.now = bench.scheduler.next_timer().unwrap();
        bench.scheduler.wake(bench.now);
    }
    assert_eq!(bench.now, last + SECOND);
    assert_eq!(bench.begin(), ["a"]);
    bench.end("a", 503, FAST);
    assert!(bench.begin().is_empty());
}

fn with_breaker(config: CircuitBreakerConfig) -> LaneSettings {
    LaneSettings {
        breaker: Some(config),
        ..settings((1, 32))
    }
}

#[test]
fn a_recovering_endpoint_gets_its_backlog_by_the_ramp() {
    const BACKLOG: usize = 1000;

    let breaker = CircuitBreakerConfig::default().with_consecutive_failures(4);
    let mut bench = Bench::new(limits(64, 64));
    let id = bench.scheduler.add(lane("a", 1, with_breaker(breaker)));
    for _ in 0..BACKLOG {
        bench.scheduler.push(id, delivery(Message::from("x")));
    }
    for _ in 0..4 {
        assert_eq!(bench.begin(), ["a"]);
        bench.end("a", 503, FAST);
    }
    assert!(bench.begin().is_empty());
    // Retries are due earlier, and wait for the circuit as well.
    bench.now += 33 * SECOND;
    bench.scheduler.wake(bench.now);
    let mut rounds = Vec::new();
    while bench.scheduler.queued() > 0 {
        assert!(rounds.len() < BACKLOG, "{rounds:?}");
        let begun = bench.begin().len();
        rounds.push(begun);
        for _ in 0..begun {
            bench.end("a", 200, FAST);
        }
        bench.now += SECOND;
        bench.scheduler.wake(bench.now);
    }
    // One probe; then at most twice as many each round trip, and never more than the limit.
    assert_eq!(rounds[..5], [1, 2, 4, 8, 16], "{rounds:?}");
    assert!(rounds.iter().all(|begun| *begun <= 32), "{rounds:?}");
    assert_eq!(rounds.iter().sum::<usize>(), BACKLOG);
}

#[test]
fn endpoints_that_failed_at_the_same_time_are_not_probed_at_the_same_time() {
    const ENDPOINTS: usize = 100;

    let open_for = 30 * SECOND;
    let breaker = CircuitBreakerConfig::default()
        .with_consecutive_failures(1)
        .with_open_for(open_for);
    let mut bench = Bench::new(limits(1000, 64));
    let began = bench.now;
    for host in 0..ENDPOINTS {
        let name = host.to_string();
        let id = bench
            .scheduler
            .add(lane(&name, host, with_breaker(breaker)));
        bench.scheduler.push(id, delivery(Message::from("x")));
        assert_eq!(bench.begin(), [name.as_str()]);
        bench.end(&name, 503, FAST);
        // Something else waits beside the retry.
        bench.scheduler.push(id, delivery(Message::from("x")));
        assert!(bench.begin().is_empty());
    }
    let mut probes = Vec::new();
    while probes.len() < ENDPOINTS {
        bench.now = bench.scheduler.next_timer().unwrap();
        bench.scheduler.wake(bench.now);
        for name in bench.begin() {
            probes.push(bench.now - began);
            bench.end(&name, 200, FAST);
        }
    }
    probes.truncate(ENDPOINTS);
    assert!(probes[0] >= open_for, "{:?}", probes[0]);
    let spread = probes[ENDPOINTS - 1].saturating_sub(probes[0]);
    assert!(spread >= SECOND, "{spread:?}");
    assert!(probes[ENDPOINTS - 1] <= open_for + open_for / 10);
}

#[test]
fn regression_room_at_a_host_is_not_lost_to_a_lane_whose_endpoint_is_gone() {
    let mut bench = Bench::new(Limits {
        per_host: Some(1),
        ..limits(16, 16)
    });
    bench.add("gone", 1, (2, 2), 2);
    assert_eq!(bench.begin(), ["gone"]);
    // Both wait for room at the host, the lane that will be gone in front.
    bench.add("other", 1, (1, 1), 1);
    assert!(bench.begin().is_empty());
    bench.end("gone", 410, FAST);
    assert_eq!(bench.begin(), ["other"]);
}

#[test]
fn a_due_retry_goes_out_although_new_messages_keep_coming() {
    // Neither with credit nor without it does the retry wait for longer than the trickle.
    for has_credit in [true, false] {
        let mut bench = Bench::new(limits(4, 4));
        let budget = RetryBudget::default().with_share(0.0);
        let settings = LaneSettings {
            budget: Some(budget),
            ..settings((1, 1))
        };
        let id = bench.scheduler.add(lane("a", 1, settings));
        let push = |bench: &mut Bench, name: &str| {
            let message = Message::from("x").with_id(name).unwrap();
            bench.scheduler.push(id, delivery(message));
        };
        let spent = if has_credit { 0 } else { 10 };
        for number in 0..spent {
            push(&mut bench, &format!("spends{number}"));
            bench.begin();
            bench.end("a", 503, FAST);
            bench.now += 20 * SECOND;
            bench.scheduler.wake(bench.now);
            bench.begin();
            bench.settle(0, unsent());
        }
        push(&mut bench, "fails");
        assert_eq!(bench.begin(), ["a"]);
        bench.end("a", 503, FAST);
        let failed_at = bench.now;
        loop {
            push(&mut bench, "new");
            bench.now += SECOND / 10;
            bench.scheduler.wake(bench.now);
            assert_eq!(bench.begin(), ["a"]);
            let is_retry = bench.under_way[0].1.message.id() == "fails";
            // It says nothing about the endpoint, and so adds no credit.
            bench.settle(0, unsent());
            if is_retry {
                break;
            }
            // A backoff of a second at most, and then the trickle of a second.
            assert!(bench.now <= failed_at + 3 * SECOND, "{has_credit}");
        }
    }
}

#[test]
fn credit_is_spent_on_older_messages_before_new_ones() {
    let mut bench = Bench::new(limits(4, 4));
    let id = bench.add("a", 1, (1, 1), 5);
    for _ in 0..5 {
        bench.begin();
        bench.end("a", 503, FAST);
    }
    bench.now += 2 * SECOND;
    for _ in 0..5 {
        bench.scheduler.push(id, delivery(Message::from("new")));
    }
    bench.scheduler.wake(bench.now);
    let mut order = Vec::new();
    for _ in 0..10 {
        assert_eq!(bench.begin(), ["a"]);
        order.push(bench.under_way[0].1.next_attempt());
        bench.end("a", 404, FAST);
    }
    assert_eq!(order, [2, 2, 2, 2, 2, 1, 1, 1, 1, 1]);
}

#[test]
fn one_slow_response_does_not_make_a_quick_lane_slow() {
    let mut bench = Bench::new(limits(4, 4));
    let id = bench.prove("a", 1, (1, 4));
    let mut speed_after = |elapsed| {
        bench.scheduler.push(id, delivery(Message::from("x")));
        assert_eq!(bench.begin(), ["a"]);
        bench.stall(elapsed);
        let meanwhile = bench.scheduler.speed(id);
        bench.end("a", 200, elapsed);
        (meanwhile, bench.scheduler.speed(id))
    };
    let (quick, slow) = (Some(Speed::Quick), Some(Speed::Slow));
    assert_eq!(speed_after(2 * SECOND), (quick, quick));
    assert_eq!(speed_after(FAST), (quick, quick));
    assert_eq!(speed_after(2 * SECOND), (quick, quick));
    // The second one in a row.
    assert_eq!(speed_after(2 * SECOND), (slow, slow));
    assert_eq!(speed_after(FAST), (slow, quick));
}

#[test]
fn a_permit_of_a_host_is_not_lost_to_a_lane_that_waits_for_the_end_of_a_slow_attempt() {
    let mut bench = Bench::new(Limits {
        per_host: Some(1),
        ..limits(4, 1)
    });
    // The only slow attempt that may be under way is at another host.
    let other = bench.add("other", 2, (1, 1), 1);
    bench.begin();
    bench.end("other", 200, 2 * SECOND);
    let slow = bench.add("slow", 1, (1, 1), 1);
    bench.begin();
    bench.end("slow", 200, 2 * SECOND);
    bench.scheduler.push(other, delivery(Message::from("x")));
    assert_eq!(bench.begin(), ["other"]);
    let quick = bench.prove("quick", 1, (1, 1));
    let busy = bench.prove("busy", 1, (1, 1));
    bench.scheduler.push(busy, delivery(Message::from("x")));
    assert_eq!(bench.begin(), ["busy"]);
    // Both wait for the host, the slow lane in front.
    bench.end("other", 200, FAST);
    bench.scheduler.push(slow, delivery(Message::from("x")));
    assert!(bench.begin().is_empty());
    bench.scheduler.push(quick, delivery(Message::from("x")));
    assert!(bench.begin().is_empty());
    let taken = bench.add("taken", 3, (1, 1), 1);
    bench.begin();
    bench.end("taken", 200, 2 * SECOND);
    bench.scheduler.push(taken, delivery(Message::from("x")));
    assert_eq!(bench.begin(), ["taken"]);
    bench.end("busy", 200, FAST);
    assert_eq!(bench.begin(), ["quick"]);
}

#[test]
fn a_permit_of_a_host_is_not_lost_to_a_lane_that_has_to_wait_for_its_circuit() {
    let mut bench = Bench::new(Limits {
        per_host: Some(1),
        ..limits(16, 16)
    });
    let breaker = CircuitBreakerConfig::default();
    bench.add("busy", 1, (1, 1), 1);
    assert_eq!(bench.begin(), ["busy"]);
    // Both wait for the host, the lane with the open circuit in front.
    let open = bench.scheduler.add(lane("open", 1, with_breaker(breaker)));
    bench.scheduler.push(open, delivery(Message::from("x")));
    assert!(bench.begin().is_empty());
    bench.add("other", 1, (1, 1), 1);
    assert!(bench.begin().is_empty());
    assert!(bench.scheduler.switch_circuit(open, true));
    bench.end("busy", 200, FAST);
    assert_eq!(bench.begin(), ["other"]);
}

#[test]
fn a_lane_that_turns_slow_while_it_waits_for_a_worker_goes_as_a_slow_one() {
    let mut bench = Bench::new(limits(4, 1));
    bench.add("stalls", 1, (1, 1), 1);
    bench.add("waits", 2, (2, 2), 2);
    // New lanes have two of the workers.
    assert_eq!(bench.begin(), ["stalls", "waits"]);
    bench.stall(SECOND);
    assert!(bench.begin().is_empty());
    bench.end("stalls", 200, 2 * SECOND);
    bench.end("waits", 200, 2 * SECOND);
    assert_eq!(bench.begin(), ["waits"]);
}

#[test]
fn a_rate_limit_spreads_the_attempts_of_a_lane() {
    let mut bench = Bench::new(limits(64, 8));
    let settings = LaneSettings {
        rate: Some(RateLimit::new(4, SECOND)),
        ..settings((32, 32))
    };
    let id = bench.scheduler.add(lane("a", 1, settings));
    for _ in 0..8 {
        bench.scheduler.push(id, delivery(Message::from("x")));
    }
    let began = bench.now;
    for number in 0..8 {
        assert_eq!(bench.begin(), ["a"]);
        assert_eq!(bench.now, began + number * SECOND / 4);
        bench.now = bench.scheduler.next_timer().unwrap_or(bench.now);
        bench.scheduler.wake(bench.now);
    }
}

#[test]
fn a_pause_holds_the_lane_and_its_retries_and_no_other_lane() {
    let mut bench = Bench::new(limits(8, 8));
    bench.add("a", 1, (2, 2), 3);
    bench.add("b", 2, (1, 1), 1);
    assert_eq!(bench.begin(), ["a", "b", "a"]);
    let asked_at = bench.now;
    bench.settle(0, pausing(429, 60 * SECOND));
    // What was under way goes on, and its success changes nothing.
    bench.end("a", 200, FAST);
    bench.end("b", 200, FAST);
    assert!(bench.begin().is_empty());
    while bench.under_way.is_empty() {
        bench.now = bench.scheduler.next_timer().unwrap();
        bench.scheduler.wake(bench.now);
        bench.begin();
    }
    let waited = bench.now - asked_at;
    assert!((60 * SECOND..=66 * SECOND).contains(&waited), "{waited:?}");
}

#[test]
fn a_delivery_that_may_not_wait_for_the_end_of_a_pause_fails_in_time() {
    let mut bench = Bench::new(limits(8, 8));
    let retry = RetryPolicy::new(Exponential::new(FAST, FAST).unwrap());
    let settings = LaneSettings {
        retry: Some(retry.with_max_age(10 * SECOND)),
        ..settings((1, 1))
    };
    let id = bench.scheduler.add(lane("a", 1, settings));
    bench.scheduler.push(id, delivery(Message::from("x")));
    bench.scheduler.push(id, delivery(Message::from("y")));
    bench.begin();
    bench.settle(0, pausing(503, 60 * SECOND));
    assert!(bench.scheduler.pick(bench.now, false).is_none());
    bench.now = bench.scheduler.next_timer().unwrap();
    bench.scheduler.wake(bench.now);
    let Some(Work::Fail { failure, .. }) = bench.scheduler.pick(bench.now, false) else {
        panic!("it still waits");
    };
    assert!(matches!(failure.cause, DeliveryErrorCause::RetryAfter));
    assert!(failure.blocked_until.is_some());
}

#[test]
fn what_the_old_endpoint_replies_says_nothing_about_the_new_one() {
    let breaker = CircuitBreakerConfig::default().with_consecutive_failures(1);
    let mut bench = Bench::new(limits(8, 8));
    let id = bench.scheduler.add(lane("a", 1, with_breaker(breaker)));
    for _ in 0..8 {
        bench.scheduler.push(id, delivery(Message::from("x")));
    }
    for begun in [1, 2] {
        assert_eq!(bench.begin().len(), begun);
        for _ in 0..begun {
            bench.end("a", 200, FAST);
        }
    }
    assert_eq!(bench.begin().len(), 4);
    bench.scheduler.change(id, endpoint(2), None);
    let lane = |bench: &Bench| {
        let lane = bench.scheduler.lane(id).unwrap();
        (
            lane.limit(),
            lane.circuit_state(),
            lane.blocked_until(bench.now),
        )
    };
    // A new destination begins with one attempt at a time.
    let new = (1, Some(CircuitState::Closed), None);
    assert_eq!(lane(&bench), new);
    bench.settle(0, pausing(503, 60 * SECOND));
    bench.end("a", 200, FAST);
    bench.end("a", 500, FAST);
    assert_eq!(lane(&bench), new);
    // What is left goes to the new endpoint, and its reply counts.
    bench.end("a", 200, FAST);
    assert_eq!(bench.begin().len(), 1);
    bench.end("a", 200, FAST);
    assert_eq!(lane(&bench), (2, Some(CircuitState::Closed), None));
}

#[test]
fn settings_that_stay_the_same_keep_what_was_learned_and_others_start_again() {
    let breaker = CircuitBreakerConfig::default().with_consecutive_failures(1);
    let mut bench = Bench::new(limits(8, 8));
    let id = bench.scheduler.add(lane("a", 1, with_breaker(breaker)));
    bench.scheduler.push(id, delivery(Message::from("x")));
    bench.begin();
    bench.end("a", 500, FAST);
    let circuit = |bench: &Bench| bench.scheduler.lane(id).unwrap().circuit_state();
    let change = |bench: &mut Bench, settings| {
        bench.scheduler.change(id, endpoint(1), Some(settings));
    };
    change(&mut bench, with_breaker(breaker));
    assert_eq!(circuit(&bench), Some(CircuitState::Open));
    change(&mut bench, with_breaker(breaker.with_ramp(2)));
    assert_eq!(circuit(&bench), Some(CircuitState::Closed));
    change(&mut bench, settings((2, 2)));
    assert_eq!(circuit(&bench), None);
    assert_eq!(bench.scheduler.lane(id).unwrap().limit(), 2);
}

#[test]
fn a_response_that_is_not_overdue_yet_leaves_the_limit_as_it_is() {
    let mut bench = Bench::new(limits(8, 8));
    let id = bench.add("a", 1, (1, 4), 10);
    // Its usual time is two seconds, so that it is overdue after more than four.
    for elapsed in [2 * SECOND; 3] {
        for _ in 0..bench.begin().len() {
            bench.end("a", 200, elapsed);
        }
    }
    assert!(!bench.begin().is_empty());
    let limit = |bench: &Bench| bench.scheduler.lane(id).unwrap().limit();
    let before = limit(&bench);
    let permit = &mut bench.under_way[0].2;
    let patience = bench.scheduler.check_late(permit, 3 * SECOND).unwrap();
    assert!(patience > 4 * SECOND, "{patience:?}");
    assert_eq!(limit(&bench), before);
    let permit = &mut bench.under_way[0].2;
    assert_eq!(bench.scheduler.check_late(permit, patience), None);
    assert_eq!((before, limit(&bench)), (4, 1));
}

#[test]
fn the_same_rate_and_budget_go_on_and_others_start_again() {
    let mut bench = Bench::new(limits(8, 8));
    let settings = |attempts, share| LaneSettings {
        rate: Some(RateLimit::new(attempts, SECOND)),
        budget: Some(RetryBudget::default().with_share(share)),
        ..settings((1, 1))
    };
    let id = bench.scheduler.add(lane("a", 1, settings(1, 0.0)));
    for _ in 0..20 {
        bench.scheduler.push(id, delivery(Message::from("x")));
    }
    assert_eq!(bench.begin(), ["a"]);
    bench.end("a", 200, FAST);
    assert!(bench.begin().is_empty());
    let change = |bench: &mut Bench, settings| {
        bench.scheduler.change(id, endpoint(1), Some(settings));
    };
    change(&mut bench, settings(1, 0.0));
    assert!(bench.begin().is_empty());
    change(&mut bench, settings(2, 0.0));
    assert_eq!(bench.begin(), ["a"]);
}

#[test]
fn the_same_budget_keeps_what_it_spent_and_another_one_begins_with_credit() {
    let mut bench = Bench::new(limits(8, 8));
    let settings = |share| LaneSettings {
        budget: Some(RetryBudget::default().with_share(share)),
        ..settings((1, 1))
    };
    let id = bench.scheduler.add(lane("a", 1, settings(0.1)));
    for _ in 0..30 {
        bench.scheduler.push(id, delivery(Message::from("x")));
    }
    let sent = |bench: &mut Bench| {
        let mut sent = 0;
        while bench.begin() == ["a"] {
            bench.end("a", 503, FAST);
            sent += 1;
        }
        sent
    };
    // All fail, and are due again after a minute.
    assert_eq!(sent(&mut bench), 30);
    bench.now += 60 * SECOND;
    bench.scheduler.wake(bench.now);
    assert_eq!(sent(&mut bench), 10);
    let change = |bench: &mut Bench, settings| {
        bench.scheduler.change(id, endpoint(1), Some(settings));
    };
    change(&mut bench, settings(0.1));
    assert_eq!(sent(&mut bench), 0);
    change(&mut bench, settings(0.2));
    assert_eq!(sent(&mut bench), 10);
}

#[test]
fn an_attempt_that_takes_just_as_long_as_allowed_is_quick() {
    let mut bench = Bench::new(limits(4, 4));
    let id = bench.add("a", 1, (1, 1), 3);
    for (elapsed, speed) in [
        (SECOND, Speed::Quick),
        (SECOND + Duration::from_nanos(1), Speed::Quick),
        (SECOND + Duration::from_nanos(1), Speed::Slow),
    ] {
        assert_eq!(bench.begin(), ["a"]);
        bench.end("a", 200, elapsed);
        assert_eq!(bench.scheduler.speed(id), Some(speed));
    }
}

#[test]
fn of_what_is_under_way_when_an_endpoint_is_gone_only_failures_that_would_wait_are_cut_short() {
    let mut bench = Bench::new(limits(16, 8));
    bench.add("a", 1, (5, 5), 6);
    assert_eq!(bench.begin().len(), 5);
    let Settled::Gone(_, _, left) = bench.settle(0, attempt(410, FAST)) else {
        panic!("it is not gone");
    };
    assert_eq!(left.len(), 1);
    let cause = |settled| match settled {
        Settled::Failed(_, _, failure) => failure.cause,
        other => panic!("{other:?}"),
    };
    let retryable = cause(bench.settle(0, attempt(503, FAST)));
    assert!(matches!(retryable, DeliveryErrorCause::Gone));
    for status in [400, 410] {
        let permanent = cause(bench.settle(0, attempt(status, FAST)));
        assert!(matches!(permanent, DeliveryErrorCause::Status(code) if code == status));
    }
    let delivered = bench.settle(0, attempt(200, FAST));
    assert!(matches!(delivered, Settled::Delivered(..)));
}

#[test]
fn an_endpoint_is_blocked_until_its_time_is_up_and_no_longer() {
    let breaker = CircuitBreakerConfig::default().with_consecutive_failures(1);
    let mut bench = Bench::new(limits(8, 8));
    let id = bench.scheduler.add(lane("a", 1, with_breaker(breaker)));
    bench.scheduler.push(id, delivery(Message::from("x")));
    assert_eq!(bench.begin(), ["a"]);
    bench.end("a", 500, FAST);
    let lane = bench.scheduler.lane(id).unwrap();
    let until = lane.blocked_until(bench.now).unwrap();
    let just_before = until.checked_sub(Duration::from_nanos(1)).unwrap();
    assert_eq!(lane.blocked_until(just_before), Some(until));
    assert_eq!(lane.blocked_until(until), None);
}
