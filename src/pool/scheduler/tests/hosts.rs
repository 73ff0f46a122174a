//! Lanes that share the limit of a host.

use super::*;

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
fn a_quick_lane_that_always_has_more_leaves_room_to_a_new_one_of_its_host() {
    let mut bench = Bench::new(Limits {
        per_host: Some(1),
        ..limits(16, 16)
    });
    let quick = bench.prove("quick", 1, (1, 1));
    for _ in 0..3 {
        bench.scheduler.push(quick, delivery(Message::from("x")));
    }
    assert_eq!(bench.begin(), ["quick"]);
    bench.add("new", 1, (1, 1), 1);
    assert!(bench.begin().is_empty());
    bench.end("quick", 200, FAST);
    assert_eq!(bench.begin(), ["new"]);
    bench.end("new", 200, FAST);
    assert_eq!(bench.begin(), ["quick"]);
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
        bench.settle(index, &attempt(503, 30 * SECOND));
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
    assert!(bench.scheduler.shares.is_empty());
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
fn a_permit_of_a_host_is_not_lost_to_a_new_lane_that_waits_for_a_worker() {
    let mut bench = Bench::new(Limits {
        per_host: Some(1),
        ..limits(4, 4)
    });
    let busy = bench.prove("busy", 1, (1, 1));
    let quick = bench.prove("quick", 1, (1, 1));
    bench.scheduler.push(busy, delivery(Message::from("x")));
    assert_eq!(bench.begin(), ["busy"]);
    // Both wait for the host, the new lane in front.
    bench.add("new", 1, (1, 1), 1);
    assert!(bench.begin().is_empty());
    bench.scheduler.push(quick, delivery(Message::from("x")));
    assert!(bench.begin().is_empty());
    // Meanwhile others take the two workers that new lanes may have.
    bench.add("other", 2, (1, 1), 1);
    bench.add("another", 3, (1, 1), 1);
    assert_eq!(bench.begin(), ["other", "another"]);
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
fn a_lane_that_turns_slow_while_it_waits_for_its_host_leaves_the_room_to_a_quick_one() {
    let mut bench = Bench::new(Limits {
        per_host: Some(2),
        ..limits(8, 8)
    });
    let slow = bench.prove("slow", 1, (4, 4));
    let quick = bench.prove("quick", 1, (1, 1));
    for _ in 0..3 {
        bench.scheduler.push(slow, delivery(Message::from("x")));
    }
    assert_eq!(bench.begin(), ["slow", "slow"]);
    bench.scheduler.push(quick, delivery(Message::from("x")));
    assert!(bench.begin().is_empty());
    bench.stall(2 * SECOND);
    // Half of the room is for slow lanes, and the other attempt holds it.
    bench.end("slow", 200, 2 * SECOND);
    assert_eq!(bench.begin(), ["quick"]);
}

#[test]
fn a_permit_of_a_host_is_not_lost_to_a_lane_that_is_let_in_and_turns_slow_before_its_turn() {
    for has_slow_worker in [true, false] {
        // Four attempts at the host at a time, two of them slow ones.
        let mut bench = Bench::new(Limits {
            per_host: Some(4),
            ..limits(8, if has_slow_worker { 8 } else { 2 })
        });
        let slow = bench.prove("slow", 1, (4, 4));
        let other = bench.prove("other", 1, (2, 2));
        let quick = bench.prove("quick", 1, (1, 1));
        for id in [slow, slow, other, other] {
            bench.scheduler.push(id, delivery(Message::from("x")));
        }
        let mut begun = bench.begin();
        begun.sort();
        assert_eq!(begun, ["other", "other", "slow", "slow"]);
        // Both wait for the host, the slow lane in front.
        bench.scheduler.push(slow, delivery(Message::from("x")));
        bench.scheduler.push(quick, delivery(Message::from("x")));
        assert!(bench.begin().is_empty());
        bench.end("other", 200, FAST);
        // The slow lane is the first to be let in; before its turn its attempts turn out to be slow.
        for (id, _, permit) in &mut bench.under_way {
            if id.as_str() == "slow" {
                bench.scheduler.check_late(permit, 2 * SECOND);
            }
        }
        assert_eq!(bench.begin(), ["quick"], "{has_slow_worker}");
    }
}

#[test]
fn a_worker_that_finds_only_lanes_of_a_full_host_gives_way_to_others() {
    let mut bench = Bench::new(Limits {
        per_host: Some(1),
        ..limits(16, 16)
    });
    bench.add("busy", 1, (1, 1), 1);
    assert_eq!(bench.begin(), ["busy"]);
    for number in 0..100 {
        bench.add(&number.to_string(), 1, (1, 1), 1);
    }
    assert!(bench.scheduler.pick(bench.now, false).is_none());
    assert!(bench.scheduler.has_work());
    assert!(bench.scheduler.pick(bench.now, false).is_none());
    assert!(!bench.scheduler.has_work());
}

/// A retry policy for messages that must not wait for long.
fn within_ten_seconds() -> RetryPolicy {
    let retry = RetryPolicy::new(Exponential::new(FAST, FAST).unwrap());
    retry.with_max_age(10 * SECOND)
}

/// What a lane fails for whose time has come while it waits for its host.
fn next_failure(bench: &mut Bench) -> DeliveryErrorCause {
    loop {
        if let Some(work) = bench.scheduler.pick(bench.now, false) {
            let Work::Fail { failure, .. } = work else {
                panic!("{work:?}");
            };
            return failure.cause;
        }
        bench.now = bench.scheduler.next_timer().unwrap();
        bench.scheduler.wake(bench.now);
        assert!(bench.scheduler.has_work());
    }
}

#[test]
fn regression_what_waits_for_an_open_circuit_fails_in_time_also_while_its_host_is_full() {
    let mut bench = Bench::new(Limits {
        per_host: Some(1),
        ..limits(16, 16)
    });
    bench.add("busy", 1, (1, 1), 1);
    assert_eq!(bench.begin(), ["busy"]);
    let settings = LaneSettings {
        retry: Some(within_ten_seconds()),
        ..with_breaker(CircuitBreakerConfig::default())
    };
    let open = bench.scheduler.add(lane("open", 1, settings));
    for _ in 0..2 {
        bench.scheduler.push(open, delivery(Message::from("x")));
    }
    assert!(bench.begin().is_empty());
    assert!(bench.scheduler.switch_circuit(open, true));
    for _ in 0..2 {
        let cause = next_failure(&mut bench);
        assert!(matches!(cause, DeliveryErrorCause::CircuitOpen));
    }
    assert_eq!(bench.scheduler.queued(), 0);
    bench.end("busy", 200, FAST);
    assert!(bench.begin().is_empty());
    assert!(bench.scheduler.shares.is_empty());
}

#[test]
fn regression_a_retry_that_waits_for_its_host_for_too_long_fails_for_what_it_failed_for_last() {
    let mut bench = Bench::new(Limits {
        per_host: Some(1),
        ..limits(16, 16)
    });
    let settings = LaneSettings {
        retry: Some(within_ten_seconds()),
        ..settings((1, 1))
    };
    let id = bench.scheduler.add(lane("a", 1, settings));
    bench.scheduler.push(id, delivery(Message::from("x")));
    assert_eq!(bench.begin(), ["a"]);
    bench.end("a", 503, FAST);
    bench.add("busy", 1, (1, 1), 1);
    assert_eq!(bench.begin(), ["busy"]);
    bench.now = bench.scheduler.next_timer().unwrap();
    bench.scheduler.wake(bench.now);
    assert!(bench.begin().is_empty());
    // A message without an attempt gets one however late it is.
    bench.scheduler.push(id, delivery(Message::from("y")));
    let cause = next_failure(&mut bench);
    assert!(matches!(cause, DeliveryErrorCause::Status(status) if status == 503));
    assert!(bench.scheduler.pick(bench.now, false).is_none());
    assert_eq!(bench.scheduler.next_timer(), None);
    bench.now += 10 * SECOND;
    bench.end("busy", 200, FAST);
    assert_eq!(bench.begin(), ["a"]);
}
