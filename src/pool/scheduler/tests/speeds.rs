//! Slow and new lanes beside quick ones.

use super::*;

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

/// The speed of a lane while an attempt lasts so long, and after it.
fn speed_after(bench: &mut Bench, id: LaneId, elapsed: Duration) -> [Option<Speed>; 2] {
    bench.scheduler.push(id, delivery(Message::from("x")));
    assert_eq!(bench.begin(), ["a"]);
    bench.stall(elapsed);
    let meanwhile = bench.scheduler.speed(id);
    bench.end("a", 200, elapsed);
    [meanwhile, bench.scheduler.speed(id)]
}

#[test]
fn one_slow_response_now_and_then_does_not_make_a_quick_lane_slow() {
    let mut bench = Bench::new(limits(4, 4));
    let id = bench.prove("a", 1, (1, 4));
    for _ in 0..3 {
        for elapsed in [2 * SECOND].into_iter().chain([FAST; 8]) {
            let speeds = speed_after(&mut bench, id, elapsed);
            assert_eq!(speeds, [Some(Speed::Quick); 2]);
        }
    }
}

#[test]
fn an_endpoint_that_stalls_every_other_request_is_slow() {
    let mut bench = Bench::new(limits(4, 4));
    let id = bench.prove("a", 1, (1, 4));
    for elapsed in [2 * SECOND, FAST] {
        let speeds = speed_after(&mut bench, id, elapsed);
        assert_eq!(speeds, [Some(Speed::Quick); 2]);
    }
    for _ in 0..8 {
        for elapsed in [2 * SECOND, FAST] {
            let speeds = speed_after(&mut bench, id, elapsed);
            assert_eq!(speeds, [Some(Speed::Slow); 2]);
        }
    }
}

#[test]
fn slow_responses_are_forgotten_with_the_eighth_after_them() {
    let mut bench = Bench::new(limits(4, 4));
    let id = bench.prove("a", 1, (1, 4));
    for _ in 0..2 {
        speed_after(&mut bench, id, 2 * SECOND);
    }
    for _ in 0..6 {
        let speeds = speed_after(&mut bench, id, FAST);
        assert_eq!(speeds, [Some(Speed::Slow); 2]);
    }
    let speeds = speed_after(&mut bench, id, FAST);
    assert_eq!(speeds, [Some(Speed::Slow), Some(Speed::Quick)]);
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
