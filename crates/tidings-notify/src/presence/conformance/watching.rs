//! Reports of users coming online and going offline.

use std::time::Duration;

use tokio::time::Instant;

use super::support::{Handles, join, next, ok, patient, register, user, users};
use crate::presence::WatchItem::{Lagged, Offline, Online};

/// It does not matter where users are, nor where they are watched.
pub async fn a_watch_reports_users_of_all_instances(handles: Handles) {
    let options = patient().with_grace(Duration::ZERO);
    let here = join(&handles[0], "one", options);
    let there = join(&handles[1], "two", options);
    let _before = register(&here, &[user("before")]).await;
    let mut watches = [ok(here.watch().await), ok(there.watch().await)];
    let mut ann = ok(here.register(user("ann")));
    for watch in &mut watches {
        assert_eq!(next(watch).await, Online(user("ann")));
    }
    let bob = register(&there, &[user("bob")]).await;
    let mut again = register(&there, &[user("ann")]).await.remove(0);
    ok(ann.unregister().await);
    ok(again.unregister().await);
    for watch in &mut watches {
        assert_eq!(next(watch).await, Online(user("bob")));
        assert_eq!(next(watch).await, Offline(user("ann")));
    }
    drop(bob);
    for watch in &mut watches {
        assert_eq!(next(watch).await, Offline(user("bob")));
    }
}

/// Reloading a page, or moving to another instance, is no news.
pub async fn a_reconnect_within_the_grace_time_is_not_reported(handles: Handles) {
    let options = patient().with_grace(Duration::from_secs(3600));
    let here = join(&handles[0], "one", options);
    let there = join(&handles[1], "two", options);
    let mut watch = ok(there.watch().await);
    for tracker in [&here, &there, &here] {
        let mut ann = register(tracker, &[user("ann")]).await;
        ok(ann.remove(0).unregister().await);
    }
    let _connections = register(&here, &["ann", "bob"].map(user)).await;
    assert_eq!(next(&mut watch).await, Online(user("ann")));
    assert_eq!(next(&mut watch).await, Online(user("bob")));
}

/// The report comes, and not too early.
pub async fn a_user_who_stays_away_is_reported_after_the_grace_time(handles: Handles) {
    const GRACE: Duration = Duration::from_millis(300);
    let here = join(&handles[0], "one", patient().with_grace(GRACE));
    let mut watch = ok(here.watch().await);
    let mut ann = register(&here, &[user("ann")]).await.remove(0);
    assert_eq!(next(&mut watch).await, Online(user("ann")));
    let left = Instant::now();
    ok(ann.unregister().await);
    assert!(!ok(handles[1].is_online(&user("ann")).await));
    assert_eq!(next(&mut watch).await, Offline(user("ann")));
    assert!(left.elapsed() >= GRACE, "after {:?}", left.elapsed());
}

/// It cannot write that itself.
pub async fn users_of_a_crashed_instance_are_reported(handles: Handles) {
    const TTL: Duration = Duration::from_millis(600);
    let options = patient().with_grace(Duration::ZERO);
    let here = join(&handles[0], "one", options);
    let there = join(&handles[1], "two", options.with_lease_ttl(TTL));
    let mut watch = ok(here.watch().await);
    let connections = register(&there, &[user("ann")]).await;
    assert_eq!(next(&mut watch).await, Online(user("ann")));
    // Its tasks end with it, and so does the heartbeat.
    drop(there);
    assert_eq!(next(&mut watch).await, Offline(user("ann")));
    drop(connections);
}

/// A reader costs no more than its buffer, and is not left in the dark.
pub async fn a_slow_watch_gets_a_report_that_it_lags(handles: Handles) {
    let here = join(
        &handles[0],
        "one",
        patient().with_grace(Duration::from_secs(3600)),
    );
    let mut slow = ok(here.watch_with_buffer(2).await);
    let mut quick = ok(here.watch_with_buffer(100).await);
    let users = users(20);
    let _connections = register(&here, &users).await;
    for _ in &users {
        assert!(matches!(next(&mut quick).await, Online(_)));
    }
    assert!(matches!(next(&mut slow).await, Online(_)));
    assert!(matches!(next(&mut slow).await, Online(_)));
    assert_eq!(next(&mut slow).await, Lagged);
    let _late = register(&here, &[user("late")]).await;
    assert_eq!(next(&mut slow).await, Online(user("late")));
    assert_eq!(next(&mut quick).await, Online(user("late")));
}
