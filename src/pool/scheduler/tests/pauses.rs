//! Endpoints that ask for no requests for a time.

use super::*;

#[test]
fn a_pause_holds_the_lane_and_its_retries_and_no_other_lane() {
    let mut bench = Bench::new(limits(8, 8));
    bench.add("a", 1, (2, 2), 3);
    bench.add("b", 2, (1, 1), 1);
    assert_eq!(bench.begin(), ["a", "b", "a"]);
    let asked_at = bench.now;
    bench.settle(0, &pausing(429, 60 * SECOND));
    // What was under way continues, and its success changes nothing.
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
fn unblocking_ends_a_pause_and_an_open_circuit_at_once() {
    let breaker = CircuitBreakerConfig::default().with_consecutive_failures(1);
    let mut bench = Bench::new(limits(8, 8));
    let id = bench.scheduler.add(lane("a", 1, with_breaker(breaker)));
    for _ in 0..2 {
        bench.scheduler.push(id, delivery(Message::from("x")));
    }
    assert_eq!(bench.begin(), ["a"]);
    bench.settle(0, &pausing(503, 60 * SECOND));
    assert!(bench.begin().is_empty());
    assert!(bench.scheduler.unblock(id));
    let lane = bench.scheduler.lane(id).unwrap();
    let state = (lane.blocked_until(bench.now), lane.circuit_state());
    assert_eq!(state, (None, Some(CircuitState::Closed)));
    assert_eq!(bench.begin(), ["a"]);
}

#[test]
fn a_shorter_pause_that_is_asked_for_later_does_not_end_a_longer_one() {
    let mut bench = Bench::new(limits(8, 8));
    let id = bench.add("a", 1, (2, 2), 2);
    assert_eq!(bench.begin(), ["a", "a"]);
    bench.settle(0, &pausing(429, 60 * SECOND));
    bench.settle(0, &pausing(429, 10 * SECOND));
    let until = bench.scheduler.lane(id).unwrap().blocked_until(bench.now);
    assert!(until.unwrap() >= bench.now + 60 * SECOND);
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
    bench.settle(0, &pausing(503, 60 * SECOND));
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
