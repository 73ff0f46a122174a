use super::support::{Stores, add, at, endpoint, event, finish, id, made, operator, outcome, work};
use crate::store::Addressed;
use crate::{DeliveryQuery, DeliveryState, Owner, StoreError};

/// In steps, with the attempts; what waits, and its event, stays.
pub async fn what_has_ended_is_cleaned(Stores { a, b }: Stores) {
    let (one, other) = (operator(&*a, 1).await, operator(&*a, 2).await);
    add(&*a, &["e1", "e2", "e3"], one, at(0)).await;
    add(&*a, &["e1"], other, at(0)).await;
    let ids = made(&*a, one).await;
    for (index, second) in [(0, 10), (1, 10), (2, 90)] {
        let done = outcome(ids[index], one, 1, finish(DeliveryState::Failed));
        a.record(vec![done], at(second), at(second)).await.unwrap();
    }
    assert_eq!(b.clean(at(10), 100).await.unwrap(), 0);
    assert_eq!(b.clean(at(50), 1).await.unwrap(), 1);
    assert_eq!(b.clean(at(50), 100).await.unwrap(), 1);
    assert_eq!(b.clean(at(50), 100).await.unwrap(), 0);
    assert_eq!(made(&*a, one).await, [ids[2]]);
    assert_eq!(a.attempts(ids[0]).await.unwrap(), None);
    assert_eq!(a.attempts(ids[2]).await.unwrap().unwrap().len(), 1);
    // The event of a delivery that waits is there, that of none is new again.
    let due = work(&*b, other, at(0)).await.due;
    assert_eq!(due[0].event, Ok(event("e1")));
    add(&*b, &["e2"], one, at(100)).await;
    assert_eq!(made(&*a, one).await.len(), 2);
    assert!(made(&*a, one).await[1] > ids[2]);
}

/// Those that went nowhere go by the time of their acceptance.
pub async fn events_of_disabled_endpoints_are_cleaned(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    let missed = |name: &str| Addressed {
        event: event(name),
        to: Vec::new(),
    };
    let later = Addressed {
        event: event("e1"),
        to: vec![(endpoint, at(0))],
    };
    a.add_deliveries(vec![missed("e1"), missed("e2")].into(), at(1))
        .await
        .unwrap();
    a.add_deliveries(vec![later].into(), at(2)).await.unwrap();
    a.add_deliveries(vec![missed("e3")].into(), at(50))
        .await
        .unwrap();
    assert_eq!(b.clean(at(20), 100).await.unwrap(), 1);
    assert_eq!(b.clean(at(20), 100).await.unwrap(), 0);
    assert_eq!(
        work(&*b, endpoint, at(0)).await.due[0].event,
        Ok(event("e1"))
    );
    assert_eq!(b.clean(at(60), 100).await.unwrap(), 1);
}

/// Once nothing refers to them.
pub async fn removed_endpoints_are_cleaned(Stores { a, b }: Stores) {
    let one = operator(&*a, 1).await;
    add(&*a, &["e1"], one, at(0)).await;
    let mut removed = endpoint(1, &Owner::Operator);
    removed.removed = true;
    assert!(a.replace_endpoint(removed, at(0), None).await.unwrap());
    assert_eq!(b.clean(at(50), 100).await.unwrap(), 0);
    assert!(work(&*b, id(1), at(0)).await.endpoint.is_some());
    a.cancel_deliveries(one, "removed", at(1), 10)
        .await
        .unwrap();
    while b.clean(at(50), 100).await.unwrap() > 0 {}
    assert!(work(&*b, id(1), at(0)).await.endpoint.is_none());
    let left = b.deliveries(&DeliveryQuery::newest(10)).await.unwrap();
    assert!(left.is_empty());
}

/// On that handle, and on no other.
pub async fn calls_after_close_are_refused(Stores { a, b }: Stores) {
    a.close().await;
    a.close().await;
    let refused = a
        .insert_endpoint(endpoint(1, &Owner::Operator), None, None)
        .await;
    assert!(matches!(refused, Err(StoreError::Closed)));
    assert!(matches!(a.count_pending().await, Err(StoreError::Closed)));
    operator(&*b, 1).await;
}
