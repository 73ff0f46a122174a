use std::collections::HashSet;

use tidings_notify::UserId;

use super::support::{Stores, add, at, event, made, names, operator, work};
use crate::WebhookEvent;
use crate::store::{AcceptedEvent, Addressed, DeferredEvent};
use crate::{EndpointId, Store};

fn of(user: &str, name: &str) -> WebhookEvent {
    event(name).with_user(UserId::new(user).unwrap())
}

async fn defer(store: &dyn Store, events: Vec<WebhookEvent>) {
    let accepted = |event| AcceptedEvent {
        event,
        newest_endpoint: 7,
    };
    let events = events.into_iter().map(accepted).collect();
    store.defer(events).await.unwrap();
}

async fn deferred(store: &dyn Store) -> Vec<DeferredEvent> {
    store.deferred(100, 1 << 20).await.unwrap()
}

fn to(endpoint: EndpointId, deferred: &DeferredEvent) -> (i64, Option<Addressed>) {
    let addressed = Addressed {
        event: deferred.event.as_ref().unwrap().event.clone(),
        to: vec![(endpoint, at(0))],
    };
    (deferred.number, Some(addressed))
}

/// The later ones of a user behind the earlier ones; none twice.
pub async fn deferred_events_keep_their_order(Stores { a, b }: Stores) {
    assert!(deferred(&*a).await.is_empty());
    let first = vec![of("bo", "z"), of("anna", "b"), event("a")];
    defer(&*a, first.clone()).await;
    defer(&*b, vec![of("anna", "b"), of("anna", "c")]).await;
    let found = deferred(&*b).await;
    let accepted: Vec<_> = found.iter().map(|it| it.event.as_ref().unwrap()).collect();
    let events: Vec<_> = accepted.iter().map(|it| it.event.clone()).collect();
    assert_eq!(events, [first, vec![of("anna", "c")]].concat());
    assert!(accepted.iter().all(|it| it.newest_endpoint == 7));
    assert!(found.is_sorted_by(|one, next| one.number < next.number));
    assert_eq!(b.count_pending().await.unwrap(), 4);
}

/// A large event comes, and after it none.
pub async fn a_page_of_deferred_events_is_bounded(Stores { a, b }: Stores) {
    defer(&*a, vec![event("e1"), event("e2"), event("e3")]).await;
    let length = async |limit, max_bytes| {
        let page = b.deferred(limit, max_bytes).await.unwrap();
        page.len()
    };
    assert_eq!(length(2, 1 << 20).await, 2);
    assert_eq!(length(100, 1 << 20).await, 3);
    assert_eq!(length(100, 1).await, 1);
    let one = serde_json::to_string(&event("e1")).unwrap().len();
    assert_eq!(length(100, 2 * one).await, 2);
}

/// Events of no user count as those of one user.
pub async fn an_audience_names_the_users_with_deferred_events(Stores { a, b }: Stores) {
    let [anna, bo] = ["anna", "bo"].map(|name| UserId::new(name).unwrap());
    defer(&*a, vec![of("anna", "e1"), of("carl", "e2")]).await;
    let users = [anna.clone(), bo.clone()];
    let audience = b.audience(&users).await.unwrap();
    assert_eq!(audience.deferred, HashSet::from([Some(anna.clone())]));
    defer(&*b, vec![event("e3")]).await;
    let audience = a.audience(&users).await.unwrap();
    assert_eq!(audience.deferred, HashSet::from([Some(anna), None]));
    assert!(audience.listeners.is_empty());
}

/// Of two instances that make the same deliveries, one makes them; the other changes nothing, not even
/// what it has in addition.
pub async fn a_deferral_ends_once(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    defer(
        &*a,
        vec![event("e1"), event("e2"), event("e3"), event("e4")],
    )
    .await;
    let found = deferred(&*b).await;
    let all: Vec<_> = found.iter().map(|it| to(endpoint, it)).collect();
    let added = a.add_deferred(all[..2].to_vec(), at(0)).await.unwrap();
    assert_eq!(added, Some(2));
    let added = b.add_deferred(all[1..].to_vec(), at(0)).await.unwrap();
    assert_eq!(added, None);
    assert_eq!(made(&*b, endpoint).await.len(), 2);
    assert_eq!(deferred(&*a).await, found[2..]);
    // No endpoint wants the third any more.
    let rest = vec![(found[2].number, None), all[3].clone()];
    // Its delivery was made in an earlier part.
    add(&*a, &["e4"], endpoint, at(0)).await;
    assert_eq!(b.add_deferred(rest, at(0)).await.unwrap(), Some(0));
    assert!(deferred(&*a).await.is_empty());
    let due = work(&*a, endpoint, at(0)).await.due;
    assert_eq!(names(&due), ["e1", "e2", "e4"]);
    let added = a.add_deferred(Vec::new(), at(0)).await.unwrap();
    assert_eq!(added, Some(0));
}

/// Each delivery is made once, in order, whichever instance makes it.
pub async fn concurrent_instances_share_the_deferred_events(Stores { a, b }: Stores) {
    let endpoint = operator(&*a, 1).await;
    let ids: Vec<_> = (0..30).map(|number| format!("e{number}")).collect();
    defer(&*a, ids.iter().map(|id| event(id)).collect()).await;
    let make = async |store: &dyn Store| {
        loop {
            let page = store.deferred(3, 1 << 20).await.unwrap();
            if page.is_empty() {
                return;
            }
            let step = page.iter().map(|it| to(endpoint, it)).collect();
            store.add_deferred(step, at(0)).await.unwrap();
        }
    };
    tokio::join!(make(&*a), make(&*b));
    let due = work(&*a, endpoint, at(0)).await.due;
    assert_eq!(names(&due), ids);
}
