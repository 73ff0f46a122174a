//! Endpoints and settings that change while work is under way.

use super::*;

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
    bench.settle(0, &pausing(503, 60 * SECOND));
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
fn attempts_that_hang_at_the_old_url_neither_hold_up_the_new_one_nor_slow_it() {
    let mut bench = Bench::new(limits(8, 8));
    let id = bench.add("a", 1, (1, 32), 4);
    assert_eq!(bench.begin(), ["a"]);
    bench.stall(SECOND);
    assert!(bench.begin().is_empty());
    bench.scheduler.change(id, endpoint(2), None);
    assert_eq!(bench.scheduler.speed(id), Some(Speed::New));
    assert_eq!(bench.scheduler.lane(id).unwrap().in_flight(), 1);
    assert_eq!(bench.begin(), ["a"]);
    assert_eq!(bench.scheduler.lane(id).unwrap().in_flight(), 2);
    // The old one is still under way, and its end says nothing about the new one.
    bench.settle(1, &attempt(200, FAST));
    for (_, _, permit) in &mut bench.under_way {
        let again = bench.scheduler.check_late(permit, 20 * SECOND);
        assert_eq!(again, None);
    }
    assert_eq!(bench.scheduler.lane(id).unwrap().limit(), 2);
    assert_eq!(bench.begin(), ["a", "a"]);
    bench.settle(0, &attempt(504, 30 * SECOND));
    let state = |bench: &Bench| {
        let lane = bench.scheduler.lane(id).unwrap();
        (bench.scheduler.speed(id), lane.limit(), lane.in_flight())
    };
    assert_eq!(state(&bench), (Some(Speed::Quick), 2, 2));
    bench.end("a", 200, FAST);
    bench.end("a", 200, FAST);
    assert_eq!(state(&bench), (Some(Speed::Quick), 4, 0));
}

#[test]
fn an_attempt_at_the_old_url_that_is_interrupted_leaves_the_count_of_the_new_one() {
    let mut bench = Bench::new(limits(8, 8));
    let id = bench.add("a", 1, (1, 1), 3);
    assert_eq!(bench.begin(), ["a"]);
    bench.scheduler.change(id, endpoint(2), None);
    assert_eq!(bench.begin(), ["a"]);
    let (_, _, old) = bench.under_way.remove(0);
    bench.scheduler.forget(old, bench.now);
    assert_eq!(bench.scheduler.lane(id).unwrap().in_flight(), 1);
    assert!(bench.begin().is_empty());
    bench.end("a", 200, FAST);
    assert_eq!(bench.begin(), ["a"]);
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
fn of_what_is_under_way_when_an_endpoint_is_gone_only_failures_that_would_wait_are_cut_short() {
    let mut bench = Bench::new(limits(16, 8));
    bench.add("a", 1, (5, 5), 6);
    assert_eq!(bench.begin().len(), 5);
    let Settled::Gone(_, left) = bench.settle(0, &attempt(410, FAST)) else {
        panic!("it is not gone");
    };
    assert_eq!(left.len(), 1);
    let cause = |settled| match settled {
        Settled::Failed(_, failure) => failure.cause,
        other => panic!("{other:?}"),
    };
    let retryable = cause(bench.settle(0, &attempt(503, FAST)));
    assert!(matches!(retryable, DeliveryErrorCause::Gone));
    for status in [400, 410] {
        let permanent = cause(bench.settle(0, &attempt(status, FAST)));
        assert!(matches!(permanent, DeliveryErrorCause::Status(code) if code == status));
    }
    let delivered = bench.settle(0, &attempt(200, FAST));
    assert!(matches!(delivered, Settled::Delivered(..)));
}
