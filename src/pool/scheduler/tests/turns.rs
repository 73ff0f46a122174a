//! How often each lane goes.

use super::*;

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
fn a_lane_keeps_its_turn_when_an_attempt_of_its_own_ends() {
    // The workers are what both lanes wait for, or the room at their host.
    for (workers, per_host) in [(2, None), (8, Some(2))] {
        let mut bench = Bench::new(Limits {
            per_host,
            ..limits(workers, 8)
        });
        let [a, b] = ["a", "b"].map(|name| bench.prove(name, 1, (4, 4)));
        for id in [a, a, a, a] {
            bench.scheduler.push(id, delivery(Message::from("x")));
        }
        assert_eq!(bench.begin(), ["a", "a"]);
        bench.scheduler.push(b, delivery(Message::from("x")));
        assert!(bench.begin().is_empty());
        bench.end("a", 200, FAST);
        assert_eq!(bench.begin(), ["a"]);
        bench.end("a", 200, FAST);
        assert_eq!(bench.begin(), ["b"]);
    }
}

#[test]
fn no_worker_is_woken_for_a_lane_that_is_at_its_limit() {
    let mut bench = Bench::new(limits(8, 8));
    let id = bench.add("a", 1, (1, 1), 1);
    let in_flight = |bench: &Bench| bench.scheduler.lane(id).unwrap().in_flight();
    assert!(bench.scheduler.has_work());
    assert_eq!(bench.begin(), ["a"]);
    assert_eq!(in_flight(&bench), 1);
    bench.scheduler.push(id, delivery(Message::from("x")));
    assert!(!bench.scheduler.has_work());
    bench.end("a", 200, FAST);
    assert!(bench.scheduler.has_work());
    assert_eq!(in_flight(&bench), 0);
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
