mod histories;

use bytes::Bytes;
use http::StatusCode;

use super::*;
use crate::circuit_breaker::{CircuitBreaker, CircuitBreakerConfig};
use crate::pool::{Places, RetryBudget};
use crate::retry::{Exponential, RetryPolicy};
use crate::{Answer, Message};

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

fn parts(in_flight: (u32, u32)) -> LaneParts {
    LaneParts {
        retry: Some(RetryPolicy::new(
            Exponential::new(SECOND, 10 * SECOND).unwrap(),
        )),
        budget: Some(RetryBudget::default()),
        breaker: None,
        in_flight,
        stops_when_gone: true,
    }
}

fn endpoint(host: usize) -> Endpoint {
    Endpoint::new(format!("http://host{host}.example/")).unwrap()
}

fn lane(name: &str, host: usize, parts: LaneParts) -> Lane {
    Lane::new(
        name.into(),
        endpoint(host),
        Places::new(10_000, None),
        parts,
    )
}

fn delivery(message: Message) -> Box<Delivery> {
    let room = Places::new(1, None).try_take().unwrap();
    Delivery::new(&"a".into(), message, room, None)
}

fn attempt(status: u16, elapsed: Duration) -> Attempt {
    Attempt {
        number: 1,
        started_at: jiff::Timestamp::now(),
        elapsed,
        phases: crate::Phases::default(),
        result: Ok(Answer {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: None,
            location: None,
            body_head: Bytes::new(),
        }),
    }
}

/// A scheduler under test, and what it let begin.
struct Bench {
    scheduler: Scheduler,
    now: Instant,
    under_way: Vec<(EndpointId, Box<Delivery>, Ticket)>,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        Self {
            scheduler: Scheduler::new(limits),
            now: Instant::now(),
            under_way: Vec::new(),
        }
    }

    /// Adds a lane with so many deliveries.
    fn add(&mut self, name: &str, host: usize, in_flight: (u32, u32), deliveries: usize) -> LaneId {
        let id = self.scheduler.add(lane(name, host, parts(in_flight)));
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
                ticket,
                ..
            } = work
            else {
                panic!("{work:?}");
            };
            begun.push(id.to_string());
            self.under_way.push((id, delivery, ticket));
        }
        begun
    }

    fn end(&mut self, name: &str, status: u16, elapsed: Duration) {
        let index = (self.under_way.iter())
            .position(|(id, ..)| id.as_str() == name)
            .unwrap();
        let (_, delivery, ticket) = self.under_way.remove(index);
        let attempt = attempt(status, elapsed);
        self.scheduler.settle(&ticket, delivery, attempt, self.now);
    }

    /// Lets every attempt under way be one that takes this long, and longer.
    fn stall(&mut self, elapsed: Duration) {
        for (_, _, ticket) in &mut self.under_way {
            self.scheduler.still_under_way(ticket, elapsed);
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
    assert_eq!(bench.scheduler.standing(dead), Some(Standing::Slow));
    for _ in 0..4 {
        bench.end("dead", 503, 30 * SECOND);
    }
    // Without an answer in time it gets one attempt, and no worker for it.
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
fn a_slow_lane_that_answers_quickly_again_is_quick_again() {
    let mut bench = Bench::new(limits(1, 1));
    let id = bench.add("a", 1, (1, 1), 3);
    bench.begin();
    bench.end("a", 200, 2 * SECOND);
    assert_eq!(bench.scheduler.standing(id), Some(Standing::Slow));
    bench.begin();
    bench.end("a", 200, FAST);
    assert_eq!(bench.scheduler.standing(id), Some(Standing::Quick));
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

    // It still answers, but late: fewer at a time, and none of them with a worker.
    rounds(&mut bench, 1, 2 * SECOND);
    assert!(limit(&bench) < 32, "{}", limit(&bench));
    assert_eq!(bench.scheduler.standing(id), Some(Standing::Slow));
    // It does not answer at all for a while.
    assert!(!bench.begin().is_empty());
    bench.stall(10 * SECOND);
    assert_eq!(limit(&bench), 1);
    while !bench.under_way.is_empty() {
        bench.end("a", 200, 11 * SECOND);
    }
    assert_eq!(limit(&bench), 1);

    rounds(&mut bench, 40, FAST);
    assert_eq!(limit(&bench), 32);
    assert_eq!(bench.scheduler.standing(id), Some(Standing::Quick));
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

fn with_breaker(config: CircuitBreakerConfig) -> LaneParts {
    LaneParts {
        breaker: Some(CircuitBreaker::new(config).unwrap()),
        ..parts((1, 32))
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
