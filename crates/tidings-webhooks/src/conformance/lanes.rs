use std::collections::BTreeSet;
use std::time::Duration;

use super::support::{
    Stores, add, ask, at, circuits, disabled, endpoint, finish, id, lease, made, operator, outcome,
    record, release, release_open,
};
use crate::store::{
    AfterAttempt, LeadRequest, LeaseRequest, NewReplay, NextDue, Outcome, Released, StoredLane,
};
use crate::{DeliveryState, Owner};

/// The one that asks first, once the lane is due.
pub async fn a_lane_has_one_instance(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    assert!(lease(&*a, "a", at(100)).await.is_empty());
    add(&*a, &["e1"], endpoint, at(10)).await;
    let early = b.lease_lanes(ask("b", at(9))).await.unwrap();
    assert_eq!((early.lanes.len(), early.next_due), (0, Some(at(10))));
    let only_look = LeaseRequest {
        limit: 0,
        ..ask("b", at(10))
    };
    let look = b.lease_lanes(only_look).await.unwrap();
    assert_eq!((look.lanes.len(), look.next_due), (0, Some(at(10))));
    assert_eq!(lease(&*b, "b", at(10)).await, [endpoint]);
    assert!(lease(&*a, "a", at(10)).await.is_empty());
    assert!(lease(&*b, "b", at(10)).await.is_empty());
    // What an instance gives back must be its own.
    release(&*a, "a", endpoint, None).await;
    assert!(lease(&*a, "a", at(11)).await.is_empty());
    release(&*b, "b", endpoint, None).await;
    assert_eq!(lease(&*a, "a", at(11)).await, [endpoint]);
}

/// The one that asks first, until its time is over or it resigns.
pub async fn one_instance_leads(Stores { a, b }: Stores) {
    let ask = |instance: &str, now, until| LeadRequest {
        instance: instance.to_owned(),
        now: at(now),
        until: at(until),
    };
    assert!(a.lead(ask("a", 0, 10)).await.unwrap());
    assert!(!b.lead(ask("b", 5, 15)).await.unwrap());
    assert!(a.lead(ask("a", 6, 16)).await.unwrap());
    assert!(!b.lead(ask("b", 15, 25)).await.unwrap());
    assert!(b.lead(ask("b", 16, 26)).await.unwrap());
    assert!(!a.lead(ask("a", 17, 27)).await.unwrap());
    // Only its own.
    a.resign("a").await.unwrap();
    assert!(!a.lead(ask("a", 18, 28)).await.unwrap());
    b.resign("b").await.unwrap();
    let (one, other) = tokio::join!(a.lead(ask("a", 19, 29)), b.lead(ask("b", 19, 29)));
    assert!(one.unwrap() != other.unwrap());
}

/// Each lane goes to one of those who ask at the same time, and the limit holds.
pub async fn concurrent_leases_share_the_lanes(Stores { a, b }: Stores) {
    for number in 1..=40 {
        let endpoint = operator(&*a, number).await;
        add(&*a, &["e"], endpoint, at(0)).await;
    }
    let some = |instance: &str| LeaseRequest {
        limit: 7,
        ..ask(instance, at(0))
    };
    let mut leased = BTreeSet::new();
    let mut count = 0;
    while leased.len() < 40 {
        let (one, other) = tokio::join!(a.lease_lanes(some("a")), b.lease_lanes(some("b")));
        let lanes = [one.unwrap().lanes, other.unwrap().lanes];
        assert!(lanes.iter().all(|lanes| lanes.len() <= 7));
        let lanes = lanes.concat();
        assert!(!lanes.is_empty(), "{} lanes were left", 40 - leased.len());
        count += lanes.len();
        leased.extend(lanes.iter().map(|lane| lane.endpoint));
    }
    assert_eq!(count, 40);
}

/// Then another instance gets the lane, and the first has it no more.
pub async fn a_lease_ends_by_its_time(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    add(&*a, &["e1"], endpoint, at(0)).await;
    assert_eq!(lease(&*a, "a", at(0)).await, [endpoint]);
    assert!(lease(&*b, "b", at(29)).await.is_empty());
    assert_eq!(lease(&*b, "b", at(30)).await, [endpoint]);
    assert!(a.renew_lanes("a", at(90)).await.unwrap().is_empty());
    release(&*a, "a", endpoint, None).await;
    assert!(lease(&*a, "a", at(59)).await.is_empty());
}

/// All of an instance at once, with the revisions of their endpoints.
pub async fn renewed_leases_last(Stores { a, b }: Stores) {
    for number in [1, 2, 3] {
        let endpoint = operator(&*a, number).await;
        add(&*a, &["e"], endpoint, at(0)).await;
    }
    let one = LeaseRequest {
        limit: 1,
        ..ask("b", at(0))
    };
    let of_b = b.lease_lanes(one).await.unwrap().lanes;
    let of_b: Vec<_> = of_b.iter().map(|lane| lane.endpoint).collect();
    let of_a = lease(&*a, "a", at(0)).await;
    assert_eq!((of_a.len(), of_b.len()), (2, 1));
    let changed = endpoint(of_a[0].as_i64(), &Owner::Operator);
    assert!(b.replace_endpoint(changed, at(0), None).await.unwrap());
    let mut held = a.renew_lanes("a", at(60)).await.unwrap();
    held.sort_unstable();
    assert_eq!(held, [(of_a[0], 2), (of_a[1], 1)]);
    assert_eq!(lease(&*a, "c", at(40)).await, of_b);
    assert_eq!(lease(&*b, "c", at(60)).await, of_a);
}

/// And one without work is gone.
pub async fn a_released_lane_is_due_when_its_next_delivery_is(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    add(&*a, &["e1"], endpoint, at(0)).await;
    add(&*a, &["e2"], endpoint, at(20)).await;
    lease(&*a, "a", at(0)).await;
    let ids = made(&*a, endpoint).await;
    let done = outcome(ids[0], endpoint, 1, finish(DeliveryState::Delivered));
    record(&*a, done).await;
    assert_eq!(release(&*a, "a", endpoint, None).await, Some(at(20)));
    let early = b.lease_lanes(ask("b", at(19))).await.unwrap();
    assert_eq!((early.lanes.len(), early.next_due), (0, Some(at(20))));
    assert_eq!(lease(&*b, "b", at(20)).await, [endpoint]);
    let done = outcome(ids[1], endpoint, 1, finish(DeliveryState::Delivered));
    record(&*b, done).await;
    assert_eq!(release(&*b, "b", endpoint, None).await, None);
    let none = a.lease_lanes(ask("a", at(10_000))).await.unwrap();
    assert_eq!((none.lanes.len(), none.next_due), (0, None));
}

/// Nothing that is pending is without a lane.
pub async fn work_that_comes_to_a_leased_lane_is_found_at_its_release(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    add(&*a, &["e1"], endpoint, at(0)).await;
    lease(&*a, "a", at(0)).await;
    add(&*b, &["e2"], endpoint, at(1)).await;
    assert!(lease(&*b, "b", at(5)).await.is_empty());
    let first = made(&*a, endpoint).await[0];
    let done = outcome(first, endpoint, 1, finish(DeliveryState::Delivered));
    record(&*a, done).await;
    assert_eq!(release(&*a, "a", endpoint, None).await, Some(at(1)));
    assert_eq!(lease(&*b, "b", at(5)).await, [endpoint]);
    // A retry of an attempt that outlived the lease has a lane too.
    let second = made(&*a, endpoint).await[1];
    let done = outcome(second, endpoint, 1, finish(DeliveryState::Delivered));
    record(&*a, done).await;
    assert_eq!(release(&*b, "b", endpoint, None).await, None);
    add(&*a, &["e3"], endpoint, at(100)).await;
    let third = made(&*a, endpoint).await[2];
    let retry = Outcome {
        was_due_at: at(100),
        ..outcome(third, endpoint, 1, AfterAttempt::Retry(at(50)))
    };
    record(&*b, retry).await;
    assert_eq!(lease(&*a, "a", at(50)).await, [endpoint]);
}

/// In the order in which they are asked about, with the revisions of their endpoints.
pub async fn what_is_due_next_is_told_for_several_lanes(Stores { a, b }: Stores) {
    let next = |revision, due: Option<i64>| NextDue {
        revision,
        due: due.map(at),
    };
    let (one, idle, replayed) = (
        operator(&*a, 1).await,
        operator(&*a, 2).await,
        operator(&*a, 3).await,
    );
    let unknown = id(9);
    add(&*a, &["late", "done"], one, at(20)).await;
    add(&*a, &["early"], one, at(10)).await;
    let done = made(&*b, one).await[1];
    record(&*a, outcome(done, one, 1, finish(DeliveryState::Delivered))).await;
    let revision = endpoint(2, &Owner::Operator).revision;
    let changed = endpoint(2, &Owner::Operator);
    assert!(a.replace_endpoint(changed, at(0), None).await.unwrap());
    let replay = NewReplay {
        endpoint: replayed,
        since: at(-100),
        until: at(100),
        per_second: 1,
    };
    assert!(a.start_replay(replay, at(7)).await.unwrap());
    let asked = [idle, one, unknown, replayed];
    let told = b.next_due(&asked).await.unwrap();
    let expected = [
        next(revision + 1, None),
        next(revision, Some(10)),
        next(0, None),
        next(revision, Some(7)),
    ];
    assert_eq!(told, expected);
    assert_eq!(b.next_due(&[]).await.unwrap(), []);
}

/// New work does not end a block. A change of the endpoint does, and the retry of a delivery.
pub async fn a_blocked_lane_waits_until_its_endpoint_is_changed(Stores { a, b }: Stores) {
    let endpoint_id = operator(&*a, 1).await;
    add(&*a, &["e1"], endpoint_id, at(0)).await;
    lease(&*a, "a", at(0)).await;
    let due = release(&*a, "a", endpoint_id, Some(at(100))).await;
    assert_eq!(due, Some(at(100)));
    add(&*b, &["e2"], endpoint_id, at(1)).await;
    assert!(lease(&*b, "b", at(99)).await.is_empty());
    assert_eq!(lease(&*b, "b", at(100)).await, [endpoint_id]);
    release(&*b, "b", endpoint_id, Some(at(1000))).await;
    assert!(lease(&*a, "a", at(999)).await.is_empty());
    let delivery = made(&*a, endpoint_id).await[0];
    let retried = b.retry_delivery(delivery, at(200)).await.unwrap();
    assert_eq!(retried, Some(endpoint_id));
    assert_eq!(lease(&*a, "a", at(200)).await, [endpoint_id]);
    release(&*a, "a", endpoint_id, Some(at(1000))).await;
    // Who holds the lane may not have seen that yet.
    b.retry_delivery(delivery, at(200)).await.unwrap();
    release(&*a, "a", endpoint_id, Some(at(1000))).await;
    assert_eq!(lease(&*b, "b", at(200)).await, [endpoint_id]);
    release(&*b, "b", endpoint_id, Some(at(1000))).await;
    assert!(lease(&*a, "a", at(999)).await.is_empty());
    b.retry_delivery(delivery, at(200)).await.unwrap();
    assert_eq!(lease(&*a, "a", at(200)).await, [endpoint_id]);
    let changed = endpoint(1, &Owner::Operator);
    let revision = changed.revision;
    assert!(b.replace_endpoint(changed, at(300), None).await.unwrap());
    assert_eq!(lease(&*a, "a", at(300)).await, [endpoint_id]);
    release(&*a, "a", endpoint_id, Some(at(1000))).await;
    let mut off = disabled(endpoint(1, &Owner::Operator));
    off.revision = revision + 1;
    assert!(b.replace_endpoint(off, at(400), None).await.unwrap());
    assert_eq!(lease(&*a, "a", at(400)).await, [endpoint_id]);
}

/// Nothing is left when it is given back, but the endpoint has asked for the wait all the same.
pub async fn a_block_is_kept_for_what_comes(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    add(&*a, &["e1"], endpoint, at(0)).await;
    lease(&*a, "a", at(0)).await;
    let gone = outcome(
        made(&*a, endpoint).await[0],
        endpoint,
        1,
        finish(DeliveryState::Failed),
    );
    record(&*a, gone).await;
    let due = release(&*a, "a", endpoint, Some(at(100))).await;
    assert_eq!(due, Some(at(100)));
    add(&*b, &["e2"], endpoint, at(1)).await;
    assert!(lease(&*b, "b", at(99)).await.is_empty());
    assert_eq!(lease(&*b, "b", at(100)).await, [endpoint]);
    let done = Outcome {
        was_due_at: at(1),
        ..outcome(
            made(&*a, endpoint).await[1],
            endpoint,
            1,
            finish(DeliveryState::Failed),
        )
    };
    record(&*b, done).await;
    // When it is over and nothing has come, there is nothing to serve.
    release(&*b, "b", endpoint, Some(at(200))).await;
    assert_eq!(lease(&*a, "a", at(200)).await, [endpoint]);
    assert_eq!(release(&*a, "a", endpoint, None).await, None);
    let none = b.lease_lanes(ask("b", at(10_000))).await.unwrap();
    assert_eq!((none.lanes.len(), none.next_due), (0, None));
}

/// As it was given back.
pub async fn a_lane_says_who_has_it_and_until_when_it_is_blocked(Stores { a, b }: Stores) {
    let (one, other) = (operator(&*a, 1).await, operator(&*a, 2).await);
    add(&*a, &["e1"], one, at(0)).await;
    let stored = async || b.lanes(&[other, one]).await.unwrap();
    let lane = |lease: Option<(&str, _)>, blocked_until, next_open_for| StoredLane {
        endpoint: one,
        instance: lease.map(|(instance, _)| instance.to_owned()),
        leased_until: lease.map(|(_, until)| until),
        blocked_until,
        next_open_for,
    };
    assert_eq!(stored().await, [lane(None, None, None)]);
    lease(&*a, "a", at(0)).await;
    let held = |until| [lane(Some(("a", at(until))), None, None)];
    assert_eq!(stored().await, held(30));
    b.renew_lanes("a", at(50)).await.unwrap();
    assert_eq!(stored().await, held(50));
    release_open(&*a, "a", one, at(30), 60).await;
    let next = Some(Duration::from_secs(60));
    assert_eq!(stored().await, [lane(None, Some(at(30)), next)]);
    add(&*a, &["e2"], other, at(0)).await;
    assert_eq!(stored().await.len(), 2);
    assert_eq!(b.lanes(&[]).await.unwrap(), []);
}

/// The instance that takes the lane next goes on where the last one stood, also if that one has crashed.
pub async fn a_circuit_outlasts_the_lease_of_its_lane(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    add(&*a, &["e1"], endpoint, at(0)).await;
    assert_eq!(circuits(&*a, "a", at(0)).await, [(endpoint, None)]);
    let due = release_open(&*a, "a", endpoint, at(30), 60).await;
    assert_eq!(due, Some(at(30)));
    let open = [(endpoint, Some(60))];
    assert_eq!(circuits(&*b, "b", at(30)).await, open);
    assert_eq!(circuits(&*a, "a", at(60)).await, open);
    release_open(&*a, "a", endpoint, at(120), 120).await;
    assert_eq!(circuits(&*b, "b", at(120)).await, [(endpoint, Some(120))]);
    // It has closed, and then the endpoint has asked for a wait.
    release(&*b, "b", endpoint, Some(at(200))).await;
    assert_eq!(circuits(&*a, "a", at(200)).await, [(endpoint, None)]);
    // Without a block, too: the instance has stopped while it was probed.
    let probed = Released {
        endpoint,
        blocked_until: None,
        next_open_for: Some(Duration::from_micros(1)),
    };
    a.release_lanes("a", vec![probed]).await.unwrap();
    let leased = b.lease_lanes(ask("b", at(200))).await.unwrap().lanes;
    assert_eq!(leased[0].next_open_for, probed.next_open_for);
}

/// By a change of the endpoint, and by the retry of a delivery.
pub async fn a_circuit_is_closed_with_the_end_of_its_block(Stores { a, b }: Stores) {
    let id = operator(&*a, 1).await;
    add(&*a, &["e1"], id, at(0)).await;
    let delivery = made(&*a, id).await[0];
    let closed = [(id, None)];
    lease(&*a, "a", at(0)).await;
    release_open(&*a, "a", id, at(1000), 60).await;
    b.retry_delivery(delivery, at(200)).await.unwrap();
    assert_eq!(circuits(&*a, "a", at(200)).await, closed);
    // Who holds the lane may not have seen that yet.
    b.retry_delivery(delivery, at(200)).await.unwrap();
    release_open(&*a, "a", id, at(1000), 60).await;
    assert_eq!(circuits(&*b, "b", at(200)).await, closed);
    release_open(&*b, "b", id, at(1000), 60).await;
    let changed = endpoint(1, &Owner::Operator);
    assert!(b.replace_endpoint(changed, at(300), None).await.unwrap());
    assert_eq!(circuits(&*a, "a", at(300)).await, closed);
}

/// An instance that has served a lane for long has not said how its circuit is.
pub async fn a_circuit_that_was_probed_long_ago_is_forgotten(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    add(&*a, &["e1"], endpoint, at(0)).await;
    lease(&*a, "a", at(0)).await;
    release_open(&*a, "a", endpoint, at(400), 60).await;
    let open = [(endpoint, Some(60))];
    assert_eq!(circuits(&*a, "a", at(400)).await, open);
    a.renew_lanes("a", at(1000)).await.unwrap();
    assert_eq!(circuits(&*b, "b", at(1000)).await, open);
    b.renew_lanes("b", at(1001)).await.unwrap();
    assert_eq!(circuits(&*a, "a", at(1001)).await, [(endpoint, None)]);
}

/// Whichever instance moves it.
pub async fn the_clock_never_goes_back(Stores { a, b }: Stores) {
    assert_eq!(a.advance_clock(at(10)).await.unwrap(), at(10));
    assert_eq!(b.advance_clock(at(5)).await.unwrap(), at(10));
    assert_eq!(b.advance_clock(at(20)).await.unwrap(), at(20));
    assert_eq!(a.advance_clock(at(0)).await.unwrap(), at(20));
}
