//! Lanes whose circuits open and recover.

use super::*;

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
fn a_stop_fails_what_meets_an_open_circuit_and_waits_for_a_probe_under_way() {
    let breaker = CircuitBreakerConfig::default().with_consecutive_failures(1);
    let settings = LaneSettings {
        in_flight: (4, 4),
        ..with_breaker(breaker)
    };
    let mut bench = Bench::new(limits(8, 8));
    let id = bench.scheduler.add(lane("a", 1, settings));
    for _ in 0..4 {
        bench.scheduler.push(id, delivery(Message::from("x")));
    }
    let Some(Work::Attempt {
        id: name,
        delivery,
        permit,
        ..
    }) = bench.scheduler.pick(bench.now, true)
    else {
        panic!("nothing goes");
    };
    bench.under_way.push((name, delivery, permit));
    bench.end("a", 503, FAST);
    let open = bench.scheduler.pick(bench.now, true);
    assert!(matches!(open, Some(Work::Fail { .. })), "{open:?}");

    bench.now += 40 * SECOND;
    bench.scheduler.wake(bench.now);
    let Some(Work::Attempt {
        id: name,
        delivery,
        permit,
        ..
    }) = bench.scheduler.pick(bench.now, true)
    else {
        panic!("no probe goes");
    };
    bench.under_way.push((name, delivery, permit));
    let half_open = bench.scheduler.pick(bench.now, true);
    assert!(half_open.is_none(), "{half_open:?}");
    bench.end("a", 200, FAST);
    assert_eq!(bench.begin(), ["a", "a"]);
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
fn regression_an_endpoint_that_fails_the_first_attempt_of_every_message_recovers() {
    let breaker = CircuitBreakerConfig::default().with_consecutive_failures(2);
    let mut bench = Bench::new(limits(64, 64));
    let id = bench.scheduler.add(lane("a", 1, with_breaker(breaker)));
    let mut states = vec![CircuitState::Closed];
    // One new message a second, for five minutes.
    for _ in 0..300 {
        bench.scheduler.push(id, delivery(Message::from("x")));
        bench.scheduler.wake(bench.now);
        while !bench.begin().is_empty() {
            while let Some((_, first, _)) = bench.under_way.first() {
                let is_first = first.next_attempt() == 1;
                bench.settle(0, &attempt(if is_first { 503 } else { 200 }, FAST));
                let lane = bench.scheduler.lane(id).unwrap();
                states.extend(lane.circuit_state());
            }
        }
        bench.now += SECOND;
    }
    states.dedup();
    let closings = (states.iter()).filter(|state| **state == CircuitState::Closed);
    // Half of each round are new messages, and the other half those that failed before.
    assert!(closings.count() > 3, "{states:?}");
}

#[test]
fn an_endpoint_that_fails_with_its_oldest_messages_is_probed_with_new_ones() {
    let breaker = CircuitBreakerConfig::default().with_consecutive_failures(2);
    let mut bench = Bench::new(limits(64, 64));
    let id = bench.scheduler.add(lane("a", 1, with_breaker(breaker)));
    for number in 0..2 {
        let message = Message::from("x").with_id(format!("bad{number}")).unwrap();
        bench.scheduler.push(id, delivery(message));
    }
    let mut delivered = 0;
    for _ in 0..300 {
        bench.scheduler.push(id, delivery(Message::from("x")));
        bench.scheduler.wake(bench.now);
        while !bench.begin().is_empty() {
            while let Some((_, first, _)) = bench.under_way.first() {
                let is_bad = first.message.id().starts_with("bad");
                delivered += usize::from(!is_bad);
                bench.settle(0, &attempt(if is_bad { 503 } else { 200 }, FAST));
            }
        }
        bench.now += SECOND;
    }
    assert!(delivered > 100, "{delivered}");
}

/// A lane whose circuit closes with its first good probe, and its bench.
fn probed() -> (Bench, LaneId) {
    let breaker = CircuitBreakerConfig::default()
        .with_consecutive_failures(1)
        .with_ramp(1);
    let mut bench = Bench::new(limits(64, 64));
    let id = bench.scheduler.add(lane("a", 1, with_breaker(breaker)));
    (bench, id)
}

fn push(bench: &mut Bench, id: LaneId, name: &str) {
    let message = Message::from("x").with_id(name).unwrap();
    bench.scheduler.push(id, delivery(message));
}

/// Lets one attempt begin once the circuit allows it, and returns whose it is.
fn probe(bench: &mut Bench, id: LaneId) -> String {
    let is_open = |bench: &Bench| {
        let lane = bench.scheduler.lane(id).unwrap();
        lane.circuit_state() == Some(CircuitState::Open)
    };
    for _ in 0..1000 {
        bench.scheduler.wake(bench.now);
        if !bench.begin().is_empty() {
            let [(_, delivery, _)] = &bench.under_way[..] else {
                panic!("more than one attempt began");
            };
            return delivery.message.id().to_owned();
        }
        assert!(is_open(bench));
        bench.now += SECOND;
    }
    panic!("no attempt began");
}

#[test]
fn the_first_probe_is_of_the_kind_that_worked_when_the_endpoint_was_last_probed() {
    let (mut bench, id) = probed();
    push(&mut bench, id, "a");
    assert_eq!(probe(&mut bench, id), "a");
    bench.end("a", 503, FAST);
    push(&mut bench, id, "b");
    assert_eq!(probe(&mut bench, id), "a");
    bench.end("a", 503, FAST);
    // The retry did not work, the new message does.
    assert_eq!(probe(&mut bench, id), "b");
    bench.end("a", 200, FAST);
    assert_eq!(probe(&mut bench, id), "a");
    bench.end("a", 200, FAST);
    // What fails while the circuit is closed says nothing about probes.
    push(&mut bench, id, "c");
    assert_eq!(probe(&mut bench, id), "c");
    bench.end("a", 503, FAST);
    push(&mut bench, id, "d");
    assert_eq!(probe(&mut bench, id), "d");
}

#[test]
fn a_change_of_a_circuit_is_there_to_report_once_and_not_at_all_if_it_was_undone() {
    let (mut bench, id) = probed();
    let (closed, open) = (CircuitState::Closed, CircuitState::Open);
    assert!(!bench.scheduler.has_circuit_change());
    push(&mut bench, id, "a");
    assert_eq!(probe(&mut bench, id), "a");
    bench.end("a", 503, FAST);
    assert!(bench.scheduler.has_circuit_change());
    let change = bench.scheduler.next_circuit_change().unwrap();
    assert_eq!(
        (change.id.as_str(), change.from, change.to),
        ("a", closed, open)
    );
    assert!(!change.by_hand && !bench.scheduler.has_circuit_change());
    assert!(bench.scheduler.next_circuit_change().is_none());
    bench.scheduler.switch_circuit(id, false);
    assert!(bench.scheduler.has_circuit_change());
    bench.scheduler.switch_circuit(id, true);
    assert!(!bench.scheduler.has_circuit_change());
}
