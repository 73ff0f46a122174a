use super::*;
use proptest::prelude::*;

const SECOND: Duration = Duration::from_secs(1);

fn breaker(config: CircuitBreakerConfig) -> CircuitBreaker {
    CircuitBreaker::new(config).unwrap()
}

/// Trips after three failures in a row, opens for ten seconds, closes after one probe.
fn plain() -> CircuitBreakerConfig {
    CircuitBreakerConfig::default()
        .with_consecutive_failures(3)
        .without_failure_rate()
        .with_open_for(10 * SECOND)
        .with_ramp(1)
}

fn admitted(breaker: &mut CircuitBreaker, now: Instant) -> Permit {
    match breaker.admit(now) {
        Admission::Admitted(permit) => permit,
        Admission::Refused { .. } => panic!("refused by {breaker:?}"),
    }
}

fn attempt(breaker: &mut CircuitBreaker, health: Health, now: Instant) {
    let permit = admitted(breaker, now);
    breaker.record(permit, health, now);
}

fn trip(breaker: &mut CircuitBreaker, now: Instant) {
    for _ in 0..3 {
        attempt(breaker, Health::Failing, now);
    }
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[test]
fn opened_by_hand_it_stays_open_until_it_is_closed_by_hand() {
    let (mut breaker, now) = (breaker(plain()), Instant::now());
    let under_way = admitted(&mut breaker, now);
    breaker.open();
    breaker.record(under_way, Health::Healthy, now);
    let later = now + 10_000 * SECOND;
    assert_eq!(breaker.admit(later), Admission::Refused { retry_at: None });
    assert_eq!(breaker.state(), CircuitState::Open);

    breaker.close();
    assert_eq!(breaker.state(), CircuitState::Closed);
    attempt(&mut breaker, Health::Healthy, now);
}

#[test]
fn closing_by_hand_forgets_the_failures_and_the_doubled_time() {
    let (mut breaker, mut now) = (breaker(plain()), Instant::now());
    trip(&mut breaker, now);
    now += 10 * SECOND;
    attempt(&mut breaker, Health::Failing, now);
    breaker.close();
    trip(&mut breaker, now);
    let retry_at = Some(now + 10 * SECOND);
    assert_eq!(breaker.admit(now), Admission::Refused { retry_at });
}

#[test]
fn resumed_it_admits_one_probe_and_opens_for_as_long_as_the_other_breaker_would_have() {
    let config = plain().with_max_open_for(100 * SECOND);
    let (mut first, mut now) = (breaker(config), Instant::now());
    trip(&mut first, now);
    now += 10 * SECOND;
    attempt(&mut first, Health::Failing, now);
    assert_eq!(first.next_open_for(), 40 * SECOND);

    let mut second = breaker(config);
    let earlier = admitted(&mut second, now);
    second.resume(first.next_open_for(), now);
    second.record(earlier, Health::Healthy, now);
    let probe = admitted(&mut second, now);
    assert_eq!(second.admit(now), Admission::Refused { retry_at: None });
    second.record(probe, Health::Failing, now);
    assert_eq!(second.open_until(), Some(now + 40 * SECOND));
    assert_eq!(second.next_open_for(), 80 * SECOND);

    for (asked, expected) in [(SECOND, 10 * SECOND), (Duration::MAX, 100 * SECOND)] {
        second.resume(asked, now);
        assert_eq!(second.next_open_for(), expected);
    }
    attempt(&mut second, Health::Healthy, now);
    assert_eq!(second.state(), CircuitState::Closed);
}

#[test]
fn failures_in_a_row_trip_it() {
    let (mut breaker, now) = (breaker(plain()), Instant::now());
    for health in [Health::Failing, Health::Failing, Health::Healthy] {
        attempt(&mut breaker, health, now);
    }
    attempt(&mut breaker, Health::Failing, now);
    attempt(&mut breaker, Health::Unknown, now);
    attempt(&mut breaker, Health::Failing, now);
    assert_eq!(breaker.state(), CircuitState::Closed);
    attempt(&mut breaker, Health::Failing, now);
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[test]
fn a_failure_rate_trips_it_once_there_are_enough_attempts() {
    let config = plain()
        .with_consecutive_failures(100)
        .with_failure_rate(0.5, 10, 60 * SECOND);
    let (mut breaker, now) = (breaker(config), Instant::now());
    for round in 0..9 {
        let health = [Health::Failing, Health::Healthy][round % 2];
        attempt(&mut breaker, health, now);
        assert_eq!(breaker.state(), CircuitState::Closed, "{round}");
    }
    attempt(&mut breaker, Health::Failing, now);
    assert_eq!(breaker.state(), CircuitState::Open);
}

#[test]
fn a_success_never_trips_it_although_it_completes_the_attempts_that_are_enough() {
    let config = plain()
        .with_consecutive_failures(100)
        .with_failure_rate(0.5, 4, 60 * SECOND);
    let (mut breaker, now) = (breaker(config), Instant::now());
    for health in [
        Health::Failing,
        Health::Failing,
        Health::Failing,
        Health::Healthy,
    ] {
        attempt(&mut breaker, health, now);
        assert_eq!(breaker.state(), CircuitState::Closed);
    }
}

#[test]
fn failures_outside_the_window_are_forgotten() {
    let config = plain()
        .with_consecutive_failures(100)
        .with_failure_rate(0.5, 10, 60 * SECOND);
    let (mut breaker, now) = (breaker(config), Instant::now());
    for number in 0..99 {
        attempt(&mut breaker, Health::Failing, now + number * 8 * SECOND);
    }
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[test]
fn an_open_breaker_refuses_until_its_time_is_up() {
    let (mut breaker, now) = (breaker(plain()), Instant::now());
    trip(&mut breaker, now);
    let until = now + 10 * SECOND;
    for now in [now, until - Duration::from_nanos(1)] {
        let retry_at = Some(until);
        assert_eq!(breaker.admit(now), Admission::Refused { retry_at });
    }
    let _probe = admitted(&mut breaker, until);
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
}

#[test]
fn half_open_admits_one_probe() {
    let (mut breaker, now) = (breaker(plain()), Instant::now());
    trip(&mut breaker, now);
    let later = now + 10 * SECOND;
    let probe = admitted(&mut breaker, later);
    assert_eq!(breaker.admit(later), Admission::Refused { retry_at: None });
    breaker.record(probe, Health::Healthy, later);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[test]
fn a_failed_probe_opens_it_for_twice_as_long_up_to_the_limit() {
    let config = plain().with_max_open_for(25 * SECOND);
    let (mut breaker, mut now) = (breaker(config), Instant::now());
    trip(&mut breaker, now);
    for seconds in [10, 20, 25, 25] {
        let until = now + seconds * SECOND;
        let refused = Admission::Refused {
            retry_at: Some(until),
        };
        assert_eq!(breaker.admit(now), refused);
        now = until;
        attempt(&mut breaker, Health::Failing, now);
    }
    now += 25 * SECOND;
    attempt(&mut breaker, Health::Healthy, now);
    trip(&mut breaker, now);
    let _probe = admitted(&mut breaker, now + 10 * SECOND);
}

#[test]
fn a_probe_that_was_not_made_gives_its_place_back() {
    let (mut breaker, now) = (breaker(plain()), Instant::now());
    trip(&mut breaker, now);
    let later = now + 10 * SECOND;
    attempt(&mut breaker, Health::Unknown, later);
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    let _probe = admitted(&mut breaker, later);
}

#[test]
fn recovery_ramps_up_by_doubling() {
    let (mut breaker, now) = (breaker(plain().with_ramp(4)), Instant::now());
    trip(&mut breaker, now);
    let later = now + 10 * SECOND;
    for round in [1, 2, 4] {
        assert_eq!(
            breaker.state(),
            match round {
                1 => CircuitState::Open,
                _ => CircuitState::HalfOpen,
            }
        );
        let probes: Vec<_> = (0..round).map(|_| admitted(&mut breaker, later)).collect();
        assert_eq!(breaker.admit(later), Admission::Refused { retry_at: None });
        for probe in probes {
            breaker.record(probe, Health::Healthy, later);
        }
    }
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[test]
fn a_round_goes_on_while_at_least_half_of_it_succeeds() {
    use Health::{Failing, Healthy};
    for (results, state) in [
        // The probe, then a round of two, then one of four.
        (&[Failing][..], CircuitState::Open),
        (&[Healthy, Failing], CircuitState::HalfOpen),
        (&[Healthy, Failing, Failing], CircuitState::Open),
        (&[Healthy, Failing, Healthy], CircuitState::HalfOpen),
        (
            &[Healthy, Healthy, Failing, Failing, Failing],
            CircuitState::HalfOpen,
        ),
        (
            &[Healthy, Healthy, Failing, Failing, Failing, Failing],
            CircuitState::Open,
        ),
        (
            &[
                Healthy, Healthy, Failing, Failing, Healthy, Failing, Healthy,
            ],
            CircuitState::Closed,
        ),
    ] {
        let (mut breaker, now) = (breaker(plain().with_ramp(4)), Instant::now());
        trip(&mut breaker, now);
        let now = breaker.open_until().unwrap();
        for health in results {
            attempt(&mut breaker, *health, now);
        }
        assert_eq!(breaker.state(), state, "{results:?}");
    }
}

#[test]
fn a_later_round_that_fails_opens_it_for_the_first_time_again() {
    let config = plain().with_ramp(4);
    let (mut breaker, mut now) = (breaker(config), Instant::now());
    trip(&mut breaker, now);
    for _ in 0..3 {
        now = breaker.open_until().unwrap();
        attempt(&mut breaker, Health::Failing, now);
    }
    assert!(breaker.open_until().unwrap() - now > config.open_for);
    now = breaker.open_until().unwrap();
    for health in [Health::Healthy, Health::Failing, Health::Failing] {
        attempt(&mut breaker, health, now);
    }
    assert_eq!(breaker.open_until().unwrap() - now, config.open_for);
}

#[test]
fn what_was_admitted_before_a_change_of_state_is_ignored_after_it() {
    let (mut breaker, now) = (breaker(plain()), Instant::now());
    let [slow, slower] = [(); 2].map(|()| admitted(&mut breaker, now));
    trip(&mut breaker, now);
    breaker.record(slow, Health::Healthy, now);
    assert_eq!(breaker.state(), CircuitState::Open);
    let later = now + 10 * SECOND;
    let probe = admitted(&mut breaker, later);
    breaker.record(slower, Health::Failing, later);
    assert_eq!(breaker.state(), CircuitState::HalfOpen);
    breaker.record(probe, Health::Healthy, later);
    assert_eq!(breaker.state(), CircuitState::Closed);
}

#[test]
fn a_permit_of_another_breaker_is_ignored() {
    let now = Instant::now();
    let (mut old, mut new) = (breaker(plain()), breaker(plain()));
    let foreign = [(); 3].map(|()| admitted(&mut old, now));
    for permit in foreign {
        new.record(permit, Health::Failing, now);
    }
    assert_eq!(new.state(), CircuitState::Closed);
}

#[test]
fn the_ends_of_the_ranges_are_allowed() {
    let config = plain()
        .with_consecutive_failures(1)
        .with_failure_rate(1.0, 1, DAY)
        .with_open_for(DAY)
        .with_max_open_for(DAY);
    let mut breaker = breaker(config);
    let now = Instant::now();
    attempt(&mut breaker, Health::Failing, now);
    assert_eq!(breaker.open_until(), Some(now + DAY));
    breaker.open();
    assert!(breaker.is_open_by_hand() && breaker.open_until().is_none());
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let minute = 60 * SECOND;
    for (config, field) in [
        (plain().with_consecutive_failures(0), "consecutive_failures"),
        (plain().with_failure_rate(0.0, 1, minute), "failure_rate"),
        (plain().with_failure_rate(1.1, 1, minute), "failure_rate"),
        (
            plain().with_failure_rate(f64::NAN, 1, minute),
            "failure_rate",
        ),
        (plain().with_failure_rate(0.5, 0, minute), "failure_rate"),
        (
            plain().with_failure_rate(0.5, 1, Duration::ZERO),
            "failure_rate",
        ),
        (
            plain().with_failure_rate(0.5, 1, Duration::MAX),
            "failure_rate",
        ),
        (plain().with_open_for(Duration::ZERO), "open_for"),
        (plain().with_open_for(Duration::MAX), "open_for"),
        (
            plain().with_open_for(DAY + Duration::from_nanos(1)),
            "open_for",
        ),
        (plain().with_max_open_for(DAY + SECOND), "max_open_for"),
        (plain().with_max_open_for(SECOND), "max_open_for"),
        (
            // In this order too, neither setting changes the other.
            plain().with_max_open_for(SECOND).with_open_for(minute),
            "max_open_for",
        ),
        (plain().with_ramp(0), "ramp"),
    ] {
        assert_eq!(CircuitBreaker::new(config).unwrap_err().field(), field);
    }
}

proptest! {
    /// Over any history, never more attempts are under way in `HalfOpen` than the ramp allows, and
    /// the breaker never refuses for ever.
    #[test]
    fn half_open_stays_within_its_ramp_and_nothing_is_refused_for_ever(
        steps in prop::collection::vec((0_u8..5, any::<prop::sample::Index>()), 0..300),
        ramp in 1_u32..6,
    ) {
        let mut breaker = breaker(plain().with_ramp(ramp));
        let mut now = Instant::now();
        let mut under_way: Vec<Permit> = Vec::new();
        for (step, which) in steps {
            if step == 0 {
                now += 7 * SECOND;
            } else if step < 3 {
                if let Admission::Admitted(permit) = breaker.admit(now) {
                    under_way.push(permit);
                }
            } else if !under_way.is_empty() {
                let permit = under_way.swap_remove(which.index(under_way.len()));
                let health = if step == 3 { Health::Healthy } else { Health::Failing };
                breaker.record(permit, health, now);
            }
            if breaker.state() == CircuitState::HalfOpen {
                let probes = under_way.iter().filter(|permit| permit.generation == breaker.generation);
                prop_assert!(probes.count() <= ramp as usize);
            }
        }
        for permit in under_way {
            breaker.record(permit, Health::Unknown, now);
        }
        let admitted = matches!(breaker.admit(now + 600 * SECOND), Admission::Admitted(_));
        prop_assert!(admitted);
    }
}
