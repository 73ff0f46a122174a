use super::support::{
    Stores, add, at, delivery, disabled, endpoint, event, finish, id, lease, made, names, operator,
    outcome, record, release, user, work,
};
use crate::store::{Addressed, NewReplay, Outcome, ReplayPage, ReplayStep, StoredEndpoint};
use crate::{DeliveryState, EndpointId, Store};

fn everything(endpoint: EndpointId) -> NewReplay {
    NewReplay {
        endpoint,
        since: at(0),
        until: at(1000),
        per_second: 5,
    }
}

async fn page(store: &dyn Store, endpoint: EndpointId, limit: usize) -> ReplayPage {
    store.replay_page(endpoint, limit).await.unwrap().unwrap()
}

/// All events of a page, due at a time.
fn step(endpoint: EndpointId, page: &ReplayPage, due: i64) -> ReplayStep {
    ReplayStep {
        endpoint,
        from: page.from,
        due: page.due,
        events: page.events.iter().map(|it| (it.number, at(due))).collect(),
        cursor: page.more.then(|| (page.to, at(due))),
    }
}

/// What failed, what was cancelled, and what has no delivery; not what was delivered or waits.
pub async fn a_replay_brings_what_did_not_arrive(Stores { a, b }: Stores) {
    let endpoint_id = operator(&*a, 1).await;
    add(
        &*a,
        &["failed", "delivered", "waiting"],
        endpoint_id,
        at(500),
    )
    .await;
    let missed = Addressed {
        event: event("missed"),
        to: Vec::new(),
    };
    a.add_deliveries(vec![missed].into(), at(1)).await.unwrap();
    let ids = made(&*a, endpoint_id).await;
    let failed = Outcome {
        was_due_at: at(500),
        ..outcome(ids[0], endpoint_id, 1, finish(DeliveryState::Failed))
    };
    record(&*a, failed).await;
    record(
        &*a,
        outcome(ids[1], endpoint_id, 1, finish(DeliveryState::Delivered)),
    )
    .await;
    lease(&*a, "a", at(500)).await;
    release(&*a, "a", endpoint_id, None).await;

    assert!(
        b.start_replay(everything(endpoint_id), at(20))
            .await
            .unwrap()
    );
    let progress = async || {
        let replay = b.health(endpoint_id).await.unwrap().replay;
        replay.map(|replay| (replay.remaining, replay.per_second))
    };
    assert_eq!(progress().await, Some((4, 5)));
    assert_eq!(lease(&*a, "a", at(20)).await, [endpoint_id]);
    assert_eq!(
        work(&*a, endpoint_id, at(20)).await.replay_due,
        Some(at(20))
    );
    let first = page(&*a, endpoint_id, 3).await;
    assert_eq!(
        (first.events.len(), first.more, first.per_second),
        (3, true, 5)
    );
    assert_eq!(first.events[0].event_type, "order.paid");
    a.replay(step(endpoint_id, &first, 21), at(20))
        .await
        .unwrap();
    assert_eq!(
        work(&*b, endpoint_id, at(21)).await.replay_due,
        Some(at(21))
    );
    assert_eq!(progress().await, Some((1, 5)));
    let second = page(&*b, endpoint_id, 3).await;
    assert_eq!((second.events.len(), second.more), (1, false));
    b.replay(step(endpoint_id, &second, 22), at(21))
        .await
        .unwrap();
    assert_eq!(a.replay_page(endpoint_id, 3).await.unwrap(), None);
    assert_eq!(progress().await, None);

    let due = work(&*a, endpoint_id, at(30)).await;
    assert_eq!(names(&due.due), ["failed", "missed"]);
    assert_eq!((due.due[0].attempts, due.due[0].tries), (1, 0));
    assert_eq!((due.next_due, due.replay_due), (Some(at(500)), None));
    assert_eq!(delivery(&*a, ids[0]).await.state, DeliveryState::Pending);
    assert_eq!(delivery(&*a, ids[1]).await.state, DeliveryState::Delivered);
    assert_eq!(release(&*a, "a", endpoint_id, None).await, Some(at(21)));
}

/// Events of others are not in it, nor those of another time; and a disabled endpoint has none.
pub async fn a_replay_is_of_its_owner_and_its_time(Stores { a, b }: Stores) {
    let anna = user("anna");
    a.insert_endpoint(endpoint(1, &anna), None, None)
        .await
        .unwrap();
    for (second, name, owner) in [
        (1, "early", "anna"),
        (2, "hers", "anna"),
        (3, "his", "bo"),
        (4, "late", "anna"),
    ] {
        let mut event = event(name);
        event.user = user(owner).user().cloned();
        let to = Vec::new();
        a.add_deliveries(vec![Addressed { event, to }].into(), at(second))
            .await
            .unwrap();
    }
    let between = NewReplay {
        since: at(2),
        until: at(4),
        ..everything(id(1))
    };
    assert!(b.start_replay(between, at(20)).await.unwrap());
    let found = page(&*a, id(1), 10).await;
    assert_eq!((found.events.len(), found.more), (1, false));
    a.replay(step(id(1), &found, 21), at(20)).await.unwrap();
    assert_eq!(names(&work(&*b, id(1), at(21)).await.due), ["hers"]);

    let nothing = NewReplay {
        since: at(500),
        ..everything(id(1))
    };
    assert!(b.start_replay(nothing, at(20)).await.unwrap());
    assert_eq!(b.replay_page(id(1), 10).await.unwrap(), None);
    assert!(!b.start_replay(everything(id(9)), at(20)).await.unwrap());
    assert!(b.start_replay(everything(id(1)), at(20)).await.unwrap());
    let off = disabled(endpoint(1, &anna));
    assert!(a.replace_endpoint(off, at(30), None).await.unwrap());
    assert!(!b.start_replay(everything(id(1)), at(30)).await.unwrap());
    a.cancel_deliveries(id(1), "off", at(30), 10).await.unwrap();
    assert_eq!(b.replay_page(id(1), 10).await.unwrap(), None);
}

/// However many events of others lie between, a step looks at a bounded number, and the replay gets to
/// the end.
pub async fn a_replay_passes_over_many_events_of_others(Stores { a, b }: Stores) {
    const OTHERS: usize = 6000;
    a.insert_endpoint(endpoint(1, &user("anna")), None, None)
        .await
        .unwrap();
    let mut events: Vec<_> = (0..OTHERS)
        .map(|number| (format!("his-{number}"), "bo"))
        .collect();
    events.push(("hers".to_owned(), "anna"));
    for chunk in events.chunks(500) {
        let of = |(name, owner): &(String, &str)| {
            let mut event = event(name);
            event.user = user(owner).user().cloned();
            let to = Vec::new();
            Addressed { event, to }
        };
        let addressed: Vec<_> = chunk.iter().map(of).collect();
        a.add_deliveries(addressed.into(), at(1)).await.unwrap();
    }
    assert!(b.start_replay(everything(id(1)), at(20)).await.unwrap());
    loop {
        let found = page(&*a, id(1), 10).await;
        assert!(found.to > found.from);
        a.replay(step(id(1), &found, 21), at(20)).await.unwrap();
        if !found.more {
            break;
        }
    }
    assert_eq!(b.replay_page(id(1), 10).await.unwrap(), None);
    assert_eq!(names(&work(&*b, id(1), at(21)).await.due), ["hers"]);
}

/// It belongs to a replay that has moved on, or to another one.
pub async fn a_stale_step_of_a_replay_does_nothing(Stores { a, b }: Stores) {
    let endpoint_id = operator(&*a, 1).await;
    let missed = ["e1", "e2"].map(|name| Addressed {
        event: event(name),
        to: Vec::new(),
    });
    a.add_deliveries(missed.as_slice().into(), at(1))
        .await
        .unwrap();
    assert!(
        a.start_replay(everything(endpoint_id), at(10))
            .await
            .unwrap()
    );
    let one = page(&*a, endpoint_id, 1).await;
    a.replay(step(endpoint_id, &one, 11), at(10)).await.unwrap();
    b.replay(step(endpoint_id, &one, 50), at(10)).await.unwrap();
    assert_eq!(page(&*b, endpoint_id, 1).await.due, at(11));
    let ids = made(&*a, endpoint_id).await;
    assert_eq!(ids.len(), 1);
    assert_eq!(delivery(&*a, ids[0]).await.next_attempt_at, Some(at(11)));
    // An endpoint that its owner begins to replay again starts at the beginning.
    assert!(
        b.start_replay(everything(endpoint_id), at(60))
            .await
            .unwrap()
    );
    assert_eq!(page(&*a, endpoint_id, 5).await.events.len(), 2);
}

/// Also when there is nothing in its time.
pub async fn a_replay_replaces_the_earlier_one(Stores { a, b }: Stores) {
    let endpoint_id = operator(&*a, 1).await;
    add(&*a, &["e1", "e2"], endpoint_id, at(500)).await;
    let all = everything(endpoint_id);
    let slower = NewReplay {
        per_second: 2,
        ..all
    };
    let of_nothing = [
        NewReplay {
            since: at(900),
            ..all
        },
        NewReplay {
            until: at(0),
            ..all
        },
    ];
    for empty in of_nothing {
        for (replay, expected) in [(all, Some(5)), (slower, Some(2)), (empty, None)] {
            assert!(b.start_replay(replay, at(20)).await.unwrap());
            let under_way = a.health(endpoint_id).await.unwrap().replay;
            assert_eq!(under_way.map(|it| it.per_second), expected);
        }
    }
}

/// By its owner, or because its endpoint is disabled, even for a moment. A step that was read before does nothing.
pub async fn a_replay_can_be_stopped(Stores { a, b }: Stores) {
    let endpoint_id = operator(&*a, 1).await;
    let missed = ["one", "two"].map(|name| Addressed {
        event: event(name),
        to: Vec::new(),
    });
    a.add_deliveries(missed.into(), at(1)).await.unwrap();
    assert!(!b.stop_replay(endpoint_id).await.unwrap());
    assert!(!b.stop_replay(id(9)).await.unwrap());
    let began = a.start_replay(everything(endpoint_id), at(10)).await;
    assert!(began.unwrap());
    let first = page(&*a, endpoint_id, 1).await;
    a.replay(step(endpoint_id, &first, 11), at(10))
        .await
        .unwrap();
    let second = page(&*a, endpoint_id, 1).await;
    assert!(b.stop_replay(endpoint_id).await.unwrap());
    assert!(!a.stop_replay(endpoint_id).await.unwrap());
    assert_eq!(b.health(endpoint_id).await.unwrap().replay, None);
    a.replay(step(endpoint_id, &second, 12), at(11))
        .await
        .unwrap();
    let due = work(&*a, endpoint_id, at(20)).await;
    assert_eq!(names(&due.due), ["one"]);
    assert_eq!((due.next_due, due.replay_due), (None, None));

    // Another one that begins at the same place is another one.
    let began = b.start_replay(everything(endpoint_id), at(30)).await;
    assert!(began.unwrap());
    let before = page(&*a, endpoint_id, 1).await;
    assert!(b.stop_replay(endpoint_id).await.unwrap());
    let began = b.start_replay(everything(endpoint_id), at(31)).await;
    assert!(began.unwrap());
    let next = page(&*a, endpoint_id, 1).await;
    assert_eq!(before.from, next.from);
    for cursor in [Some((before.to, at(32))), None] {
        let stale = ReplayStep {
            cursor,
            ..step(endpoint_id, &before, 32)
        };
        a.replay(stale, at(31)).await.unwrap();
        assert_eq!(page(&*b, endpoint_id, 1).await, next);
    }

    let off = disabled(a.endpoint(endpoint_id).await.unwrap().unwrap());
    let on = StoredEndpoint {
        disabled: None,
        revision: off.revision + 1,
        ..off.clone()
    };
    assert!(a.replace_endpoint(off, at(31), None).await.unwrap());
    assert!(a.replace_endpoint(on, at(31), None).await.unwrap());
    assert_eq!(b.replay_page(endpoint_id, 10).await.unwrap(), None);
}

/// An event that is cleaned between a page and its step is not in the step.
pub async fn what_is_cleaned_meanwhile_is_not_replayed(Stores { a, b }: Stores) {
    let endpoint_id = operator(&*a, 1).await;
    for (second, name) in [(1, "old"), (50, "new")] {
        let missed = Addressed {
            event: event(name),
            to: Vec::new(),
        };
        let missed = vec![missed].into();
        a.add_deliveries(missed, at(second)).await.unwrap();
    }
    let began = a.start_replay(everything(endpoint_id), at(60)).await;
    assert!(began.unwrap());
    let both = page(&*a, endpoint_id, 10).await;
    assert_eq!(both.events.len(), 2);
    assert_eq!(b.clean(at(20), 100).await.unwrap(), 1);
    a.replay(step(endpoint_id, &both, 61), at(60))
        .await
        .unwrap();
    assert_eq!(made(&*b, endpoint_id).await.len(), 1);
    assert_eq!(names(&work(&*b, endpoint_id, at(61)).await.due), ["new"]);
}
