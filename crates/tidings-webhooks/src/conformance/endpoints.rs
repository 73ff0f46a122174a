use std::time::Duration;

use tidings_notify::UserId;

use super::support::{Stores, at, disabled, endpoint, event, id, made, operator, user};
use crate::store::{Addressed, Notice, StoredEndpoint};
use crate::{EndpointId, Owner, StoreError};

/// Every field survives, and each owner's endpoints come the oldest first.
pub async fn endpoints_are_listed_by_owner(Stores { a, b }: Stores) {
    let anna = user("anna");
    let mut full = disabled(endpoint(7, &anna));
    full.first_wait = Some(Duration::from_millis(1500));
    r#"["é"]"#.clone_into(&mut full.secrets);
    full.revision = 3;
    a.insert_endpoint(full.clone(), None, None).await.unwrap();
    for number in [5, 6] {
        let of_operator = endpoint(number, &Owner::Operator);
        b.insert_endpoint(of_operator, None, None).await.unwrap();
    }
    let second = endpoint(8, &anna);
    b.insert_endpoint(second.clone(), None, None).await.unwrap();
    assert_eq!(b.endpoint(id(7)).await.unwrap(), Some(full.clone()));
    assert_eq!(b.endpoints(&anna).await.unwrap(), [full, second]);
    let ids = |found: Vec<crate::store::StoredEndpoint>| -> Vec<EndpointId> {
        found.iter().map(|endpoint| endpoint.id).collect()
    };
    let of_operator = a.endpoints(&Owner::Operator).await.unwrap();
    assert_eq!(ids(of_operator), [id(5), id(6)]);
    assert!(a.endpoints(&user("bo")).await.unwrap().is_empty());
    assert_eq!(a.endpoint(id(9)).await.unwrap(), None);
}

/// The limit holds for each owner, and removed endpoints do not count.
pub async fn an_owner_has_at_most_its_limit(Stores { a, b }: Stores) {
    let anna = user("anna");
    for number in [1, 2] {
        let new = endpoint(number, &anna);
        a.insert_endpoint(new, Some(2), None).await.unwrap();
    }
    let third = endpoint(3, &anna);
    let refused = b.insert_endpoint(third.clone(), Some(2), None).await;
    assert!(matches!(
        refused,
        Err(StoreError::TooManyEndpoints { limit: 2 })
    ));
    let of_other = endpoint(4, &user("bo"));
    b.insert_endpoint(of_other, Some(1), None).await.unwrap();
    let of_operator = endpoint(5, &Owner::Operator);
    b.insert_endpoint(of_operator, Some(1), None).await.unwrap();

    let mut removed = endpoint(1, &anna);
    removed.removed = true;
    assert!(a.replace_endpoint(removed, at(0), None).await.unwrap());
    b.insert_endpoint(third, Some(2), None).await.unwrap();
}

/// Of two who change the same revision, one does.
pub async fn a_change_replaces_the_revision_that_it_names(Stores { a, b }: Stores) {
    let endpoint = endpoint(1, &Owner::Operator);
    a.insert_endpoint(endpoint.clone(), None, None)
        .await
        .unwrap();
    let mut one = disabled(endpoint.clone());
    "{}".clone_into(&mut one.settings);
    "[]".clone_into(&mut one.event_types);
    let (first, second) = tokio::join!(
        a.replace_endpoint(one.clone(), at(0), None),
        b.replace_endpoint(one.clone(), at(0), None)
    );
    assert_eq!(
        [first.unwrap(), second.unwrap()]
            .iter()
            .filter(|it| **it)
            .count(),
        1
    );
    one.revision = 2;
    assert_eq!(b.endpoint(id(1)).await.unwrap(), Some(one.clone()));
    assert!(!a.replace_endpoint(endpoint, at(0), None).await.unwrap());
    one.disabled = None;
    assert!(b.replace_endpoint(one, at(0), None).await.unwrap());
    let changed = a.endpoint(id(1)).await.unwrap().unwrap();
    assert_eq!((changed.revision, changed.disabled), (3, None));
}

/// It is not changed either, and its lane still knows it.
pub async fn a_removed_endpoint_is_not_found(Stores { a, b }: Stores) {
    operator(&*a, 1).await;
    let mut removed = endpoint(1, &Owner::Operator);
    removed.removed = true;
    assert!(
        b.replace_endpoint(removed.clone(), at(0), None)
            .await
            .unwrap()
    );
    removed.revision = 2;
    assert!(!a.replace_endpoint(removed, at(0), None).await.unwrap());
    assert_eq!(a.endpoint(id(1)).await.unwrap(), None);
    assert!(a.endpoints(&Owner::Operator).await.unwrap().is_empty());
    assert_eq!(a.newest_endpoint_if_wanted(&[]).await.unwrap(), None);
    let work = super::support::work(&*a, id(1), at(0)).await;
    assert!(work.endpoint.unwrap().removed);
}

/// They come in pages, of removed endpoints too, and a change that was made meanwhile stays.
pub async fn secrets_are_listed_and_replaced_by_themselves(Stores { a, b }: Stores) {
    let anna = user("anna");
    for number in [3, 1, 2] {
        let new = endpoint(number, &anna);
        a.insert_endpoint(new, None, None).await.unwrap();
    }
    let mut removed = endpoint(3, &anna);
    removed.removed = true;
    assert!(a.replace_endpoint(removed, at(0), None).await.unwrap());
    let mut first = b.secrets(None, 2).await.unwrap();
    let ids: Vec<_> = first.iter().map(|it| it.endpoint).collect();
    assert_eq!(ids, [id(1), id(2)]);
    assert_eq!(first[0].secrets, endpoint(1, &anna).secrets);
    let rest = b.secrets(Some(id(2)), 2).await.unwrap();
    assert_eq!((rest.len(), rest[0].endpoint), (1, id(3)));

    let changed = disabled(endpoint(2, &anna));
    let is_changed = a.replace_endpoint(changed.clone(), at(0), None).await;
    assert!(is_changed.unwrap());
    for new in &mut first {
        "'new' \"é\"".clone_into(&mut new.secrets);
    }
    b.replace_secrets(first.clone()).await.unwrap();
    let found = a.endpoint(id(1)).await.unwrap().unwrap();
    let expected = StoredEndpoint {
        secrets: first[0].secrets.clone(),
        revision: 2,
        ..endpoint(1, &anna)
    };
    assert_eq!(found, expected);
    let found = a.endpoint(id(2)).await.unwrap().unwrap();
    assert_eq!(found.secrets, changed.secrets);
    b.replace_secrets(Vec::new()).await.unwrap();
}

/// Disabled ones listen too, so that what they miss can be replayed.
pub async fn those_who_listen_are_the_operator_and_the_user(Stores { a, b }: Stores) {
    let (anna, bo) = (UserId::new("anna").unwrap(), UserId::new("bo").unwrap());
    let only_bo = std::slice::from_ref(&bo);
    let is_wanted = async |users: &[UserId]| {
        let newest = b.newest_endpoint_if_wanted(users).await;
        newest.unwrap().is_some()
    };
    assert!(!is_wanted(only_bo).await);
    let mut of_anna = disabled(endpoint(1, &Owner::User(anna.clone())));
    of_anna.first_wait = Some(Duration::from_secs(2));
    a.insert_endpoint(of_anna, None, None).await.unwrap();
    assert!(!is_wanted(only_bo).await);
    assert!(!is_wanted(&[]).await);
    assert!(is_wanted(&[bo.clone(), anna.clone()]).await);
    operator(&*a, 2).await;
    assert!(is_wanted(only_bo).await);
    assert!(is_wanted(&[]).await);

    let users = [bo, anna.clone(), anna.clone()];
    let audience = b.audience(&users).await.unwrap();
    assert!(audience.deferred.is_empty());
    let listeners = audience.listeners;
    let mut seen: Vec<_> = listeners.iter().map(|it| (it.id, it.enabled)).collect();
    seen.sort_unstable();
    assert_eq!(seen, [(id(1), false), (id(2), true)]);
    let of_anna = listeners.iter().find(|it| it.id == id(1)).unwrap();
    assert_eq!(of_anna.owner, Owner::User(anna));
    assert_eq!(of_anna.event_types, r#"["order.*"]"#);
    assert_eq!(of_anna.first_wait, Some(Duration::from_secs(2)));
    let of_operator = b.audience(&[]).await.unwrap().listeners;
    assert_eq!(of_operator.len(), 1);
    assert_eq!(of_operator[0].id, id(2));
}

/// So an event can name the endpoints that there were when it was accepted. Numbers are not used again.
pub async fn endpoints_are_numbered_in_the_order_of_their_making(Stores { a, b }: Stores) {
    let newest = async |store: &dyn crate::Store| {
        let newest = store.newest_endpoint_if_wanted(&[]).await.unwrap();
        newest.unwrap()
    };
    operator(&*a, 9).await;
    let first = newest(&*b).await;
    operator(&*b, 1).await;
    let second = newest(&*a).await;
    operator(&*a, 5).await;
    let third = newest(&*b).await;
    assert!(first < second && second < third);
    let mut listeners = b.audience(&[]).await.unwrap().listeners;
    listeners.sort_by_key(|listener| listener.number);
    let numbers: Vec<_> = listeners.iter().map(|it| (it.id, it.number)).collect();
    assert_eq!(numbers, [(id(9), first), (id(1), second), (id(5), third)]);

    let mut removed = endpoint(5, &Owner::Operator);
    removed.removed = true;
    assert!(a.replace_endpoint(removed, at(0), None).await.unwrap());
    assert!(a.clean(at(0), 100).await.unwrap() > 0);
    operator(&*a, 6).await;
    assert!(newest(&*a).await > third);
}

/// A change that is not made makes no event.
pub async fn a_notice_is_stored_with_its_change(Stores { a, b }: Stores) {
    let watcher = operator(&*a, 1).await;
    let notice = |name| Notice {
        addressed: Addressed {
            event: event(name),
            to: vec![(watcher, at(0))],
        },
        at: at(0),
    };
    let new = endpoint(2, &Owner::Operator);
    let created = Some(notice("created"));
    a.insert_endpoint(new.clone(), None, created).await.unwrap();
    let changed = a
        .replace_endpoint(new.clone(), at(0), Some(notice("changed")))
        .await;
    assert!(changed.unwrap());
    let stale = b.replace_endpoint(new, at(0), Some(notice("stale"))).await;
    assert!(!stale.unwrap());
    let refused = endpoint(3, &Owner::Operator);
    let refused = b
        .insert_endpoint(refused, Some(2), Some(notice("refused")))
        .await;
    assert!(refused.is_err());
    assert_eq!(made(&*b, watcher).await.len(), 2);
    let due = super::support::work(&*b, watcher, at(0)).await.due;
    assert_eq!(super::support::names(&due), ["created", "changed"]);
}
