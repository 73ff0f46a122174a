//! Retries beside new messages.

use super::*;

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
            bench.settle(0, &unsent());
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
            bench.settle(0, &unsent());
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
fn a_retry_that_grows_too_old_without_credit_fails_for_what_its_last_attempt_failed_for() {
    let mut bench = Bench::new(limits(4, 4));
    let retry = RetryPolicy::new(Exponential::new(FAST, FAST).unwrap());
    let settings = LaneSettings {
        retry: Some(retry.with_max_age(10 * SECOND)),
        budget: Some(RetryBudget::default().with_trickle(60 * SECOND)),
        ..settings((1, 1))
    };
    let id = bench.scheduler.add(lane("a", 1, settings));
    bench.scheduler.push(id, delivery(Message::from("x")));
    let failure = loop {
        match bench.scheduler.pick(bench.now, false) {
            Some(Work::Attempt {
                id,
                delivery,
                permit,
                ..
            }) => {
                bench.under_way.push((id, delivery, permit));
                bench.end("a", 503, FAST);
            }
            Some(Work::Fail { failure, .. }) => break failure,
            None => {
                bench.now = bench.scheduler.next_timer().unwrap();
                bench.scheduler.wake(bench.now);
            }
        }
    };
    assert!(matches!(failure.cause, DeliveryErrorCause::Status(status) if status == 503));
    assert_eq!(failure.blocked_until, None);
}
