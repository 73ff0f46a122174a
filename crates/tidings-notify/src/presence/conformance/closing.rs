//! The end.

use std::slice;
use std::time::Duration;

use super::support::{Handles, LONG, Writer, is_online, join, ok, patient, register, user};
use crate::presence::{Heartbeat, PresenceError, Update, WatchItem};

fn is_closed<T>(reply: &Result<T, PresenceError>) -> bool {
    matches!(reply, Err(PresenceError::Closed))
}

/// A closed presence returns nothing else, and so does a tracker over it.
pub async fn calls_after_close_return_closed(handles: Handles) {
    let [presence, _other] = &handles;
    let ann = user("ann");
    let Writer { lease, .. } = Writer::new("one", LONG);
    let tracker = join(presence, "one", patient());
    let mut connection = ok(tracker.register(ann.clone()));
    ok(connection.stored().await);
    presence.close().await;
    presence.close().await;
    let update = Update {
        version: 1,
        ..Update::default()
    };
    let expected = Heartbeat {
        version: 1,
        users: 0,
    };
    assert!(is_closed(&presence.update(&lease, &update).await));
    assert!(is_closed(&presence.beat(&lease, &expected).await));
    assert!(is_closed(&presence.end(lease.id).await));
    assert!(is_closed(&presence.is_online(&ann).await));
    assert!(is_closed(
        &presence.online_users(slice::from_ref(&ann)).await
    ));
    assert!(is_closed(&presence.locate(&ann).await));
    assert!(is_closed(&presence.transitions(None, 1).await));
    assert!(is_closed(&connection.unregister().await));
    assert!(is_closed(&tracker.watch().await));
    assert!(is_closed(&tracker.close().await));
}

/// It says goodbye, and ends what depends on it.
pub async fn a_closed_tracker_takes_its_users_offline(handles: Handles) {
    let (ann, bob) = (user("ann"), user("bob"));
    let here = join(&handles[0], "one", patient().with_grace(Duration::ZERO));
    let there = join(&handles[1], "two", patient().with_grace(Duration::ZERO));
    let mut connections = register(&here, &[ann.clone(), bob.clone()]).await;
    let _other = register(&there, slice::from_ref(&bob)).await;
    let mut ended = ok(here.watch().await);
    let mut watch = ok(there.watch().await);
    ok(here.close().await);
    ok(here.close().await);
    assert!(!is_online(&handles, &ann).await);
    assert!(is_online(&handles, &bob).await);
    let offline = super::support::next(&mut watch).await;
    assert_eq!(offline, WatchItem::Offline(ann.clone()));
    // What its own end does may be the last that it reports.
    let mut last = ended.next().await;
    if matches!(&last, Ok(WatchItem::Offline(user)) if *user == ann) {
        last = ended.next().await;
    }
    assert!(is_closed(&last));
    assert!(is_closed(&here.register(ann).map(drop)));
    assert!(is_closed(&here.watch().await));
    assert!(is_closed(&connections[0].stored().await));
    assert!(is_closed(&connections[1].unregister().await));
    drop(connections);
    assert!(is_online(&handles, &bob).await);
}
