//! Who is online, and where.

use std::slice;
use std::sync::Arc;

use super::support::{Handles, is_online, join, ok, patient, place, register, user, users};
use crate::presence::PresenceError;

/// Registering takes a user online, unregistering offline, as every instance sees it.
pub async fn a_user_is_offline_then_online_then_offline(handles: Handles) {
    let ann = user("ann");
    let tracker = join(&handles[0], "one", patient());
    for _ in 0..2 {
        assert!(!is_online(&handles, &ann).await);
        let mut connection = ok(tracker.register(ann.clone()));
        ok(connection.stored().await);
        assert!(is_online(&handles, &ann).await);
        ok(connection.unregister().await);
    }
    assert!(!is_online(&handles, &ann).await);
}

/// A user has many devices, at one instance and at several.
pub async fn a_user_is_online_until_the_last_registration_leaves(handles: Handles) {
    let ann = user("ann");
    let here = join(&handles[0], "one", patient());
    let there = join(&handles[1], "two", patient());
    let mut connections = Vec::new();
    for tracker in [&here, &here, &there] {
        connections.append(&mut register(tracker, slice::from_ref(&ann)).await);
    }
    for mut connection in connections {
        assert!(is_online(&handles, &ann).await);
        ok(connection.unregister().await);
    }
    assert!(!is_online(&handles, &ann).await);
}

/// Only the first call ends anything.
pub async fn unregistering_twice_is_harmless(handles: Handles) {
    let ann = user("ann");
    let tracker = join(&handles[0], "one", patient());
    let mut first = ok(tracker.register(ann.clone()));
    let mut second = ok(tracker.register(ann.clone()));
    ok(first.unregister().await);
    ok(first.unregister().await);
    drop(first);
    ok(second.stored().await);
    assert!(is_online(&handles, &ann).await);
    ok(second.unregister().await);
    ok(second.unregister().await);
    assert!(!is_online(&handles, &ann).await);
}

/// A bulk query returns those who are asked for, in their order.
pub async fn online_users_filters_and_keeps_the_order(handles: Handles) {
    let tracker = join(&handles[0], "one", patient());
    let _connections = register(&tracker, &["dan", "bob", "cid", "eve"].map(user)).await;
    let asked = ["dan", "ann", "cid", "bob", "dan"].map(user);
    for presence in &handles {
        let online = ok(presence.online_users(&asked).await);
        assert_eq!(online, ["dan", "cid", "bob", "dan"].map(user));
        assert_eq!(ok(presence.online_users(&[]).await), []);
    }
}

/// A user may be at several instances, which others must find.
pub async fn locate_names_every_instance_once_with_its_metadata(handles: Handles) {
    let ann = user("ann");
    let unknown = handles[0].locate(&ann).await;
    assert!(matches!(unknown, Err(PresenceError::NotFound)));
    let one = join(&handles[0], "one", patient());
    let two = join(&handles[1], "two", patient());
    let three = join(&handles[1], "three", patient());
    let _phone = register(&one, slice::from_ref(&ann)).await;
    let tablets = register(&two, &[ann.clone(), ann.clone()]).await;
    let _bob = register(&three, &[user("bob")]).await;
    for presence in &handles {
        let mut places = ok(presence.locate(&ann).await);
        places.sort_by(|a, b| a.instance_id.cmp(&b.instance_id));
        assert_eq!(places, [place("one"), place("two")]);
    }
    for mut tablet in tablets {
        ok(tablet.unregister().await);
    }
    assert_eq!(ok(handles[1].locate(&ann).await), [place("one")]);
}

/// Names that look alike are different users.
pub async fn names_are_compared_byte_by_byte(handles: Handles) {
    let names = ["ann", "\u{e9}", "{a}", "a:b", "x'y\"z\\", "\u{1f642}"].map(user);
    let others = ["Ann", "an", "e\u{301}", "a", "{b}", "b", "ann2"].map(user);
    let tracker = join(&handles[0], "one", patient());
    let _connections = register(&tracker, &names).await;
    assert_eq!(ok(handles[1].online_users(&names).await), names);
    assert_eq!(ok(handles[1].online_users(&others).await), []);
}

/// No number of users is too large for a call.
pub async fn thousands_of_users_come_and_leave(handles: Handles) {
    let users = users(2_600);
    let (here, elsewhere) = users.split_at(1_300);
    let tracker = join(&handles[0], "one", patient());
    let connections = register(&tracker, here).await;
    assert_eq!(ok(handles[1].online_users(&users).await), here);
    let _others = register(&tracker, elsewhere).await;
    for mut connection in connections {
        drop(connection.unregister().await);
    }
    assert_eq!(ok(handles[1].online_users(&users).await), elsewhere);
}

/// However registrations overlap, nothing is left of those that have ended.
pub async fn a_hundred_concurrent_registrations_up_and_down_end_offline(handles: Handles) {
    let ann = user("ann");
    let trackers = [0, 1].map(|n| Arc::new(join(&handles[n], &n.to_string(), patient())));
    let registering = (0..100).map(|n| {
        let (tracker, ann) = (Arc::clone(&trackers[n % 2]), ann.clone());
        tokio::spawn(async move {
            let connection = ok(tracker.register(ann));
            ok(connection.stored().await);
            connection
        })
    });
    let mut connections = Vec::new();
    for task in registering.collect::<Vec<_>>() {
        connections.push(task.await.expect("no task panics"));
    }
    assert_eq!(ok(handles[0].locate(&ann).await).len(), 2);
    let leaving = connections
        .into_iter()
        .map(|mut connection| tokio::spawn(async move { ok(connection.unregister().await) }));
    for task in leaving.collect::<Vec<_>>() {
        task.await.expect("no task panics");
    }
    assert!(!is_online(&handles, &ann).await);
}
