use std::collections::HashSet;

use tidings_notify::Payload;

use super::support::{
    Stores, add, at, delivery, disabled, endpoint, event, finish, id, made, names, operator,
    outcome, query, record, user, work,
};
use crate::store::{Added, Addressed};
use crate::{DeliveryQuery, DeliveryState, EndpointId, Owner};

/// Neither for an event that comes again, nor for another one with its id.
pub async fn a_repeated_event_makes_no_second_delivery(Stores { a, b }: Stores) {
    let (one, other) = (operator(&*a, 1).await, operator(&*a, 2).await);
    add(&*a, &["x"], one, at(0)).await;
    add(&*b, &["x"], one, at(5)).await;
    let mut again = event("x");
    again.payload = Payload::parse("2").unwrap();
    let both = Addressed {
        event: again,
        to: vec![(one, at(5)), (other, at(5))],
    };
    a.add_deliveries(vec![both].into(), at(1)).await.unwrap();
    assert_eq!(made(&*b, one).await.len(), 1);
    let due = work(&*b, one, at(0)).await.due;
    assert_eq!(due[0].event, Ok(event("x")));
    let due = work(&*b, other, at(5)).await.due;
    assert_eq!(due[0].event, Ok(event("x")));
    assert_eq!((due[0].attempts, due[0].tries), (0, 0));
}

/// In the order of their addresses. What was there, or may be stored with other contents, is not named; what is new
/// is counted.
pub async fn new_deliveries_are_named(Stores { a, b }: Stores) {
    let (one, other) = (operator(&*a, 1).await, operator(&*a, 2).await);
    let to = |name: &str, endpoints: &[EndpointId]| Addressed {
        event: event(name),
        to: endpoints.iter().map(|id| (*id, at(0))).collect(),
    };
    let events = [to("z", &[other, one]), to("kept", &[]), to("a", &[one])];
    let added = a.add_deliveries(events.into(), at(0)).await.unwrap();
    let of_one = made(&*b, one).await;
    let of_other = made(&*b, other).await;
    let expected = [of_other[0], of_one[0], of_one[1]].map(Some);
    assert_eq!(added.deliveries, expected);
    assert_eq!(added.count, 3);
    let again = [
        to("a", &[other, one]),
        to("kept", &[one]),
        to("new", &[one]),
    ];
    let added = b.add_deliveries(again.clone().into(), at(0)).await.unwrap();
    let newest = made(&*a, one).await.pop();
    assert_eq!(added.deliveries, [None, None, None, newest]);
    assert_eq!(added.count, 3);
    let repeated = a.add_deliveries(again.into(), at(0)).await.unwrap();
    assert_eq!(repeated.count, 0);
    assert_eq!(made(&*a, one).await.len(), 4);
    assert_eq!(made(&*a, other).await.len(), 2);
    let nothing = a.add_deliveries([].into(), at(0)).await.unwrap();
    assert_eq!(nothing, Added::default());
}

/// Two instances that make the same deliveries at the same time do not get in each other's way.
pub async fn concurrent_fan_outs_make_each_delivery_once(Stores { a, b }: Stores) {
    let endpoints = [operator(&*a, 1).await, operator(&*a, 2).await];
    let batch = |reversed: bool| -> Vec<Addressed> {
        let mut events: Vec<_> = (0..50)
            .map(|number| Addressed {
                event: event(&format!("e{number}")),
                to: endpoints.map(|endpoint| (endpoint, at(0))).to_vec(),
            })
            .collect();
        if reversed {
            events.reverse();
        }
        events
    };
    for _ in 0..3 {
        let (one, other) = tokio::join!(
            a.add_deliveries(batch(false).into(), at(0)),
            b.add_deliveries(batch(true).into(), at(0))
        );
        one.unwrap();
        other.unwrap();
    }
    for endpoint in endpoints {
        let ids = made(&*a, endpoint).await;
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), 50);
        assert_eq!(work(&*b, endpoint, at(0)).await.due.len(), 50);
    }
}

/// By their time, and within it in the order in which they were made.
pub async fn deliveries_are_due_in_order(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    let other = operator(&*a, 2).await;
    add(&*a, &["late"], endpoint, at(20)).await;
    add(&*a, &["b1", "b2", "b3"], endpoint, at(10)).await;
    add(&*b, &["a"], endpoint, at(5)).await;
    add(&*b, &["elsewhere"], other, at(0)).await;
    let due = work(&*b, endpoint, at(10)).await;
    assert_eq!(names(&due.due), ["a", "b1", "b2", "b3"]);
    assert_eq!(due.next_due, Some(at(20)));
    assert_eq!(due.replay_due, None);
    let nothing = work(&*b, endpoint, at(4)).await;
    assert!(nothing.due.is_empty());
    assert_eq!(nothing.next_due, Some(at(5)));
    let everything = work(&*a, endpoint, at(20)).await;
    assert_eq!((everything.due.len(), everything.next_due), (5, None));
    assert_eq!(everything.endpoint.unwrap().id, endpoint);
    let unknown = work(&*a, id(99), at(20)).await;
    assert!(unknown.endpoint.is_none() && unknown.due.is_empty());
}

/// A large event comes, and after it none.
pub async fn a_page_is_bounded_in_rows_and_bytes(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    add(&*a, &["e1", "e2", "e3"], endpoint, at(0)).await;
    let mut two = query(endpoint, at(1));
    two.limit = 2;
    let page = b.lane_work(two.clone()).await.unwrap();
    assert_eq!(names(&page.due), ["e1", "e2"]);
    assert!(page.next_due.unwrap() <= at(1));
    two.limit = 3;
    let page = b.lane_work(two.clone()).await.unwrap();
    assert_eq!((page.due.len(), page.next_due), (3, None));
    two.max_bytes = 1;
    let page = b.lane_work(two.clone()).await.unwrap();
    assert_eq!(names(&page.due), ["e1"]);
    assert!(page.next_due.unwrap() <= at(1));
    two.limit = 0;
    let page = b.lane_work(two).await.unwrap();
    assert!(page.due.is_empty() && page.next_due.unwrap() <= at(1));
}

/// Wherever it stands, and also when it is not pending any more.
pub async fn what_is_held_is_left_out(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    add(&*a, &["e1", "e2", "e3", "e4"], endpoint, at(0)).await;
    let ids = made(&*a, endpoint).await;
    let mut others = query(endpoint, at(0));
    others.held = vec![ids[0], ids[2]];
    others.limit = 1;
    let page = b.lane_work(others.clone()).await.unwrap();
    assert_eq!(names(&page.due), ["e2"]);
    assert_eq!(page.next_due, Some(at(0)));
    let done = outcome(ids[0], endpoint, 1, finish(DeliveryState::Delivered));
    record(&*a, done).await;
    others.limit = 2;
    let page = b.lane_work(others).await.unwrap();
    assert_eq!(names(&page.due), ["e2", "e4"]);
    assert_eq!(page.next_due, None);
}

/// With every combination of conditions, page by page.
pub async fn deliveries_are_listed_newest_first(Stores { a, b }: Stores) {
    let anna = user("anna");
    a.insert_endpoint(endpoint(1, &anna), None, None)
        .await
        .unwrap();
    let (one, other) = (id(1), operator(&*a, 2).await);
    add(&*a, &["e1", "e2", "e3"], one, at(0)).await;
    add(&*a, &["e1"], other, at(0)).await;
    let ids = made(&*a, one).await;
    let failed = outcome(ids[1], one, 1, finish(DeliveryState::Failed));
    record(&*b, failed).await;
    let list = |query: DeliveryQuery| {
        let store = b.clone();
        async move { store.deliveries(&query).await.unwrap() }
    };
    let all = list(DeliveryQuery::newest(10)).await;
    assert_eq!(all.len(), 4);
    assert!(all.windows(2).all(|pair| pair[0].id > pair[1].id));
    let first = list(DeliveryQuery::newest(2)).await;
    let second = list(DeliveryQuery::newest(2).before(first[1].id)).await;
    assert_eq!([first, second].concat(), all);
    assert_eq!(list(DeliveryQuery::newest(10).to(one)).await.len(), 3);
    let pending = DeliveryQuery::newest(10).in_state(DeliveryState::Pending);
    assert_eq!(list(pending.clone()).await.len(), 3);
    assert_eq!(list(pending.clone().to(one)).await.len(), 2);
    assert_eq!(list(pending.to(one).before(ids[1])).await.len(), 1);
    let failed = list(DeliveryQuery::newest(10).in_state(DeliveryState::Failed)).await;
    assert_eq!(failed, [delivery(&*a, ids[1]).await]);
    let shown = &failed[0];
    assert_eq!(
        (shown.event_id.as_str(), shown.event_type.as_str()),
        ("e2", "order.paid")
    );
    assert_eq!((&shown.owner, shown.endpoint_id), (&anna, one));
    assert_eq!((shown.attempts, shown.finished_at), (1, Some(at(10))));
    assert_eq!((shown.created_at, shown.next_attempt_at), (at(0), None));
    let unknown = crate::DeliveryId::from_i64(i64::MAX);
    assert_eq!(a.delivery(unknown).await.unwrap(), None);
    assert_eq!(a.attempts(unknown).await.unwrap(), None);
    assert_eq!(a.attempts(ids[0]).await.unwrap(), Some(Vec::new()));
}

/// Whatever has become of the delivery, and of its endpoint.
pub async fn the_event_of_a_delivery_is_found(Stores { a, b }: Stores) {
    let endpoint_id = operator(&*a, 1).await;
    add(&*a, &["e1", "e2"], endpoint_id, at(0)).await;
    let ids = made(&*a, endpoint_id).await;
    let failed = outcome(ids[1], endpoint_id, 1, finish(DeliveryState::Failed));
    record(&*a, failed).await;
    let off = disabled(endpoint(1, &Owner::Operator));
    assert!(a.replace_endpoint(off, at(50), None).await.unwrap());
    for (id, name) in ids.iter().zip(["e1", "e2"]) {
        let sent = b.sent_event(*id).await.unwrap().unwrap();
        assert_eq!((sent.endpoint, sent.event), (endpoint_id, event(name)));
    }
    let unknown = crate::DeliveryId::from_i64(i64::MAX);
    assert_eq!(a.sent_event(unknown).await.unwrap(), None);
}

/// Whatever its state, from the beginning of its schedule; attempts are counted on. Not that of an
/// endpoint that gets nothing.
pub async fn a_finished_delivery_is_retried(Stores { a, b }: Stores) {
    let endpoint_id = operator(&*a, 1).await;
    add(&*a, &["e1"], endpoint_id, at(0)).await;
    let id = made(&*a, endpoint_id).await[0];
    for state in [DeliveryState::Failed, DeliveryState::Delivered] {
        let attempts = delivery(&*a, id).await.attempts;
        let ended = outcome(id, endpoint_id, attempts + 1, finish(state));
        record(&*a, ended).await;
        assert_eq!(
            b.retry_delivery(id, at(50)).await.unwrap(),
            Some(endpoint_id)
        );
        let again = delivery(&*a, id).await;
        assert_eq!(
            (again.state, again.finished_at),
            (DeliveryState::Pending, None)
        );
        assert_eq!(again.next_attempt_at, Some(at(50)));
        let due = work(&*b, endpoint_id, at(50)).await.due;
        assert_eq!((due[0].attempts, due[0].tries), (attempts + 1, 0));
    }
    let unknown = crate::DeliveryId::from_i64(i64::MAX);
    assert_eq!(a.retry_delivery(unknown, at(50)).await.unwrap(), None);
    let off = disabled(endpoint(1, &Owner::Operator));
    assert!(a.replace_endpoint(off, at(50), None).await.unwrap());
    assert_eq!(b.retry_delivery(id, at(60)).await.unwrap(), None);
}

/// In all, and for each endpoint.
pub async fn waiting_deliveries_are_counted(Stores { a, b }: Stores) {
    let (one, other) = (operator(&*a, 1).await, operator(&*a, 2).await);
    assert_eq!(b.count_pending().await.unwrap(), 0);
    add(&*a, &["e1", "e2"], one, at(0)).await;
    add(&*a, &["e1"], other, at(1000)).await;
    assert_eq!(b.count_pending().await.unwrap(), 3);
    let id = made(&*a, one).await[0];
    let done = outcome(id, one, 1, finish(DeliveryState::Delivered));
    record(&*a, done).await;
    assert_eq!(b.count_pending().await.unwrap(), 2);
    assert_eq!(b.health(one).await.unwrap().pending, 1);
    assert_eq!(b.health(other).await.unwrap().pending, 1);
}
