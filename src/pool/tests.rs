//! What follows from a change of the state, for the workers and for the timer.

use jiff::Timestamp;

use super::scheduler::Work;
use super::*;
use crate::retry::RetryPolicy;
use crate::{Attempt, AttemptError, ErrorKind, Phases, Verdict};

const SECOND: Duration = Duration::from_secs(1);

fn attempt(verdict: Verdict) -> Attempt {
    Attempt {
        number: 1,
        started_at: Timestamp::UNIX_EPOCH,
        elapsed: Duration::ZERO,
        phases: Phases::default(),
        verdict,
        result: Err(AttemptError::new(ErrorKind::Reset, ErrorKind::Reset)),
    }
}

/// Lets the only attempt begin that may, and end after a while.
fn make_attempt(state: &mut State, now: Instant, retry_after: Option<Duration>) {
    let Some(Work::Attempt {
        delivery, permit, ..
    }) = state.scheduler.pick(now, false)
    else {
        panic!("nothing goes");
    };
    let begun = state.effects();
    assert_eq!(begun.queued, Some((1, 0)));
    assert_eq!(begun.is_drained, state.phase == Phase::Stopping);
    // The timer ends with the last attempt and not before.
    assert!(!begun.has_work && !begun.wakes_timer);
    let verdict = match retry_after {
        Some(_) => Verdict::Retryable,
        None => Verdict::Permanent,
    };
    let attempt = attempt(verdict);
    (state.scheduler).settle(permit, delivery, &attempt, retry_after, now);
}

#[test]
fn a_change_wakes_workers_and_the_timer_only_when_there_is_something_for_them() {
    let limits = Limits {
        workers: 1,
        isolation: None,
        per_host: None,
        group_parts: None,
    };
    let sender = Sender::builder().build().unwrap();
    let pool = Pool::new(sender, limits, Callbacks::default());
    let mut state = pool.lock();
    state.phase = Phase::Running;
    let settings = LaneSettings {
        queue_size: 1,
        retry: Some(RetryPolicy::default()),
        budget: None,
        breaker: None,
        rate: None,
        in_flight: (1, 1),
        stops_when_gone: true,
        group: None,
    };
    let endpoint = Endpoint::new("http://host.example/").unwrap();
    let permits = state.add(&"a".into(), endpoint, settings, None);
    let nothing = state.effects();
    assert!(!nothing.has_work && !nothing.is_drained && !nothing.wakes_timer);
    assert_eq!(nothing.queued, None);

    let lane = state.ids["a"];
    let permit = permits.try_acquire().unwrap();
    let delivery = Delivery::new("a", Message::from("x"), permit, None);
    state.scheduler.push(lane, delivery);
    let pushed = state.effects();
    assert!(pushed.has_work && !pushed.wakes_timer);
    assert_eq!(pushed.queued, Some((0, 1)));

    let now = Instant::now();
    make_attempt(&mut state, now, Some(SECOND));
    assert!(state.scheduler.pick(now, false).is_none());
    let due = now + SECOND;
    for (timer, wakes_timer) in [
        (None, true),
        (Some(due + SECOND), true),
        (Some(due), false),
        (Some(now), false),
    ] {
        state.timer = timer;
        assert_eq!(state.effects().wakes_timer, wakes_timer, "{timer:?}");
    }

    state.begin_stop();
    let stopping = state.effects();
    assert!(!stopping.is_drained && !stopping.wakes_timer);
    state.scheduler.wake(due);
    make_attempt(&mut state, due, None);
    let drained = state.effects();
    assert!(drained.is_drained && drained.wakes_timer);
}
