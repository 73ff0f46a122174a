use super::support::{
    Stores, add, at, attempt, delivery, disabled, endpoint, finish, made, operator, outcome,
    record, release, work,
};
use crate::store::{AfterAttempt, Outcome};
use crate::{AttemptRecord, DeliveryId, DeliveryState, Owner};

/// The first success stays; attempts are recorded all the same.
pub async fn an_outcome_changes_a_pending_delivery_only(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    add(&*a, &["e1"], endpoint, at(0)).await;
    let id = made(&*a, endpoint).await[0];
    let delivered = Outcome {
        next: AfterAttempt::Finish {
            state: DeliveryState::Delivered,
            reason: Some("it came".to_owned()),
        },
        ..outcome(id, endpoint, 1, finish(DeliveryState::Delivered))
    };
    record(&*a, delivered).await;
    let first = delivery(&*b, id).await;
    assert_eq!((first.state, first.attempts), (DeliveryState::Delivered, 1));
    assert_eq!(first.reason.as_deref(), Some("it came"));
    let late = [
        outcome(id, endpoint, 2, finish(DeliveryState::Failed)),
        outcome(id, endpoint, 3, AfterAttempt::Retry(at(50))),
    ];
    b.record(late.to_vec(), at(20), at(20)).await.unwrap();
    let after = delivery(&*a, id).await;
    assert_eq!(after.attempts, 3);
    assert_eq!(
        after,
        crate::Delivery {
            attempts: 3,
            ..first
        }
    );
    let attempts = a.attempts(id).await.unwrap().unwrap();
    assert_eq!(attempts, [attempt(1), attempt(2), attempt(3)]);
    assert!(work(&*a, endpoint, at(100)).await.due.is_empty());
}

/// Or has failed, as another instance knew it. So a replay does not send it again.
pub async fn what_arrived_is_delivered_although_it_was_cancelled_meanwhile(
    Stores { a, b }: Stores,
) {
    let id = operator(&*a, 1).await;
    add(&*a, &["e1", "e2"], id, at(0)).await;
    let ids = made(&*a, id).await;
    record(&*a, outcome(ids[0], id, 1, finish(DeliveryState::Failed))).await;
    let off = disabled(endpoint(1, &Owner::Operator));
    assert!(b.replace_endpoint(off, at(5), None).await.unwrap());
    b.cancel_deliveries(id, "disabled", at(5), 100)
        .await
        .unwrap();
    assert_eq!(delivery(&*b, ids[1]).await.state, DeliveryState::Cancelled);
    for (delivered, number) in [(ids[0], 2), (ids[1], 1)] {
        let late = outcome(delivered, id, number, finish(DeliveryState::Delivered));
        record(&*a, late).await;
        let found = delivery(&*b, delivered).await;
        assert_eq!(found.state, DeliveryState::Delivered);
        assert_eq!((found.reason, found.attempts), (None, number));
    }
}

/// And its place in its schedule is kept.
pub async fn a_retry_is_due_at_its_time(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    add(&*a, &["e1"], endpoint, at(0)).await;
    let id = made(&*a, endpoint).await[0];
    let mut failed = outcome(id, endpoint, 1, AfterAttempt::Retry(at(15)));
    let mut attempt = attempt(1);
    attempt.status = None;
    attempt.error = Some("the connection was refused".to_owned());
    "é".clone_into(&mut attempt.response);
    failed.attempt = Some(attempt.clone());
    record(&*a, failed).await;
    let waiting = delivery(&*b, id).await;
    assert_eq!(waiting.next_attempt_at, Some(at(15)));
    assert_eq!(b.attempts(id).await.unwrap().unwrap(), [attempt]);
    assert_eq!(work(&*b, endpoint, at(14)).await.next_due, Some(at(15)));
    let due = work(&*b, endpoint, at(15)).await.due;
    assert_eq!((due[0].id, due[0].attempts, due[0].tries), (id, 1, 1));
    // Without an attempt it was only put off, and says why until it is tried again.
    let put_off = |was_due_at, until, why: Option<&str>| Outcome {
        was_due_at,
        attempt: None,
        waits_because: why.map(str::to_owned),
        ..outcome(id, endpoint, 2, AfterAttempt::Retry(until))
    };
    record(&*b, put_off(at(15), at(30), Some("no port is left"))).await;
    let due = work(&*a, endpoint, at(30)).await.due;
    assert_eq!((due[0].attempts, due[0].tries), (1, 1));
    let waiting = delivery(&*a, id).await;
    assert_eq!(waiting.reason.as_deref(), Some("no port is left"));
    record(&*b, put_off(at(30), at(45), None)).await;
    assert_eq!(delivery(&*a, id).await.reason, None);
}

/// The caller wants an attempt that begins now, whatever comes of the one under way.
pub async fn a_delivery_that_was_begun_again_is_changed_by_success_only(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    add(&*a, &["e1", "e2"], endpoint, at(0)).await;
    let ids = made(&*a, endpoint).await;
    let failures = [AfterAttempt::Retry(at(900)), finish(DeliveryState::Failed)];
    for (id, next) in ids.iter().zip(failures) {
        let retried = b.retry_delivery(*id, at(5)).await.unwrap();
        assert_eq!(retried, Some(endpoint));
        record(&*a, outcome(*id, endpoint, 1, next)).await;
        let found = delivery(&*b, *id).await;
        assert_eq!((found.state, found.attempts), (DeliveryState::Pending, 1));
        assert_eq!(found.next_attempt_at, Some(at(5)));
        assert_eq!(b.attempts(*id).await.unwrap().unwrap(), [attempt(1)]);
    }
    let due = work(&*b, endpoint, at(5)).await.due;
    let begun: Vec<_> = due.iter().map(|it| (it.tries, it.due_at)).collect();
    assert_eq!(begun, [(0, at(5)), (0, at(5))]);
    let came = outcome(ids[0], endpoint, 2, finish(DeliveryState::Delivered));
    record(&*a, came).await;
    let found = delivery(&*b, ids[0]).await;
    assert_eq!(found.state, DeliveryState::Delivered);
}

/// Two instances may have made one of that number each.
pub async fn attempts_of_the_same_number_are_all_kept(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    add(&*a, &["e1"], endpoint, at(0)).await;
    let id = made(&*a, endpoint).await[0];
    record(&*a, outcome(id, endpoint, 1, AfterAttempt::Retry(at(20)))).await;
    let mut of_another = outcome(id, endpoint, 1, AfterAttempt::Retry(at(30)));
    of_another.attempt = Some(AttemptRecord {
        number: 1,
        ..attempt(2)
    });
    record(&*b, of_another).await;
    let attempts = a.attempts(id).await.unwrap().unwrap();
    let numbers: Vec<_> = attempts.iter().map(|attempt| attempt.number).collect();
    assert_eq!(numbers, [1, 2]);
    assert_eq!(delivery(&*a, id).await.attempts, 2);
}

/// A reply that was lost does not say whether they were recorded. The first of them may be of a delivery that is gone.
pub async fn outcomes_that_are_recorded_again_change_nothing(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    add(&*a, &["e1", "e2"], endpoint, at(0)).await;
    let ids = made(&*a, endpoint).await;
    let gone = DeliveryId::from_i64(i64::MAX);
    let batch = vec![
        outcome(gone, endpoint, 1, finish(DeliveryState::Failed)),
        outcome(ids[0], endpoint, 1, AfterAttempt::Retry(at(20))),
        outcome(ids[1], endpoint, 1, AfterAttempt::Retry(at(30))),
    ];
    let news = a.record(batch.clone(), at(10), at(110)).await.unwrap();
    let all = async || {
        let due = work(&*a, endpoint, at(30)).await.due;
        let tries: Vec<_> = due.iter().map(|due| (due.attempts, due.tries)).collect();
        let attempts = a.attempts(ids[0]).await.unwrap();
        let second = delivery(&*b, ids[1]).await;
        (tries, attempts, second, b.health(endpoint).await.unwrap())
    };
    let before = all().await;
    assert_eq!(before.0, [(1, 1), (1, 1)]);
    let again = b.record(batch, at(12), at(112)).await.unwrap();
    assert_eq!(again, news);
    assert_eq!(all().await, before);
}

/// Nor does it keep the others of its batch from being recorded.
pub async fn an_outcome_of_an_unknown_delivery_does_nothing(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    add(&*a, &["e1"], endpoint, at(0)).await;
    let id = made(&*a, endpoint).await[0];
    let unknown = DeliveryId::from_i64(i64::MAX);
    let batch = vec![
        outcome(unknown, endpoint, 1, finish(DeliveryState::Failed)),
        outcome(id, endpoint, 1, finish(DeliveryState::Delivered)),
    ];
    b.record(batch, at(10), at(10)).await.unwrap();
    assert_eq!(a.attempts(unknown).await.unwrap(), None);
    assert_eq!(delivery(&*a, id).await.state, DeliveryState::Delivered);
    assert!(
        b.record(Vec::new(), at(10), at(10))
            .await
            .unwrap()
            .is_empty()
    );
}

/// When it last succeeded and failed, since when it fails, and its share of successes.
pub async fn health_follows_the_outcomes(Stores { a, b }: Stores) {
    let endpoint_id = operator(&*a, 1).await;
    add(&*a, &["e1", "e2", "e3", "e4"], endpoint_id, at(0)).await;
    let ids = made(&*a, endpoint_id).await;
    let failure = |index: usize, number| {
        outcome(
            ids[index],
            endpoint_id,
            number,
            AfterAttempt::Retry(at(900)),
        )
    };
    let success =
        |index: usize| outcome(ids[index], endpoint_id, 9, finish(DeliveryState::Delivered));
    assert_eq!(a.health(endpoint_id).await.unwrap().last_success_at, None);

    let news = a
        .record(vec![failure(0, 1)], at(10), at(110))
        .await
        .unwrap();
    assert_eq!(news, [(endpoint_id, Some(at(10)))]);
    let news = b
        .record(vec![failure(0, 2)], at(20), at(120))
        .await
        .unwrap();
    assert_eq!(news, [(endpoint_id, Some(at(10)))]);
    let news = b
        .record(vec![failure(0, 3), success(1)], at(30), at(130))
        .await
        .unwrap();
    assert_eq!(news, [(endpoint_id, None)]);
    let news = b
        .record(vec![success(2), failure(0, 4)], at(40), at(140))
        .await
        .unwrap();
    assert_eq!(news, [(endpoint_id, Some(at(40)))]);
    let health = a.health(endpoint_id).await.unwrap();
    assert_eq!(health.last_success_at, Some(at(140)));
    assert_eq!(health.last_failure_at, Some(at(140)));
    assert_eq!(health.failing_since, Some(at(40)));
    assert_eq!((health.succeeded, health.failed), (2, 4));

    // The figures are those of two hours with attempts.
    for (hours, number, expected) in [(1, 5, (2, 5)), (2, 6, (0, 2))] {
        let later = at(140 + hours * 3600);
        let failed = vec![failure(0, number)];
        a.record(failed, at(50), later).await.unwrap();
        let health = b.health(endpoint_id).await.unwrap();
        assert_eq!((health.succeeded, health.failed), expected);
    }
    // Its owner has changed something: it begins anew.
    let changed = endpoint(1, &Owner::Operator);
    assert!(a.replace_endpoint(changed, at(60), None).await.unwrap());
    assert_eq!(b.health(endpoint_id).await.unwrap().failing_since, None);
}

/// Those of an endpoint that gets nothing any more, and of no other.
pub async fn deliveries_are_cancelled_in_steps(Stores { a, b }: Stores) {
    let endpoint_id = operator(&*a, 1).await;
    add(&*a, &["e1", "e2", "e3"], endpoint_id, at(0)).await;
    let cancel = |limit| a.cancel_deliveries(endpoint_id, "it is off", at(30), limit);
    assert_eq!(cancel(10).await.unwrap(), 0);
    let ids = made(&*a, endpoint_id).await;
    let done = outcome(ids[0], endpoint_id, 1, finish(DeliveryState::Delivered));
    record(&*b, done).await;
    let off = disabled(endpoint(1, &Owner::Operator));
    assert!(b.replace_endpoint(off, at(20), None).await.unwrap());
    assert_eq!(super::support::lease(&*a, "a", at(20)).await, [endpoint_id]);
    assert_eq!(cancel(1).await.unwrap(), 1);
    assert_eq!(cancel(10).await.unwrap(), 1);
    assert_eq!(cancel(10).await.unwrap(), 0);
    assert_eq!(release(&*a, "a", endpoint_id, None).await, None);
    assert_eq!(delivery(&*b, ids[0]).await.state, DeliveryState::Delivered);
    let cancelled = delivery(&*b, ids[2]).await;
    assert_eq!(cancelled.state, DeliveryState::Cancelled);
    assert_eq!(cancelled.reason.as_deref(), Some("it is off"));
    assert_eq!(
        (cancelled.finished_at, cancelled.next_attempt_at),
        (Some(at(30)), None)
    );
    // An attempt that was under way does not bring it back.
    record(
        &*a,
        outcome(ids[2], endpoint_id, 1, AfterAttempt::Retry(at(50))),
    )
    .await;
    let after = delivery(&*b, ids[2]).await;
    assert_eq!(
        (after.state, after.next_attempt_at),
        (DeliveryState::Cancelled, None)
    );
    assert_eq!(b.attempts(ids[2]).await.unwrap().unwrap().len(), 1);
}
