//! Leases of instances.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::support::{
    Handles, LONG, Observed, Writer, is_online, join, mark, ok, patient, place, register, since,
    until, user, users,
};
use crate::Presence;
use crate::presence::{LeaseId, Standing, Update};

const SHORT: Duration = Duration::from_millis(700);

/// A crash is noticed after the time to live, by the store's clock alone.
pub async fn users_go_offline_when_their_lease_ends_and_not_before(handles: Handles) {
    let (ann, bob) = (user("ann"), user("bob"));
    let mut lasting = Writer::new("lasting", LONG);
    lasting.write(&*handles[0], &["bob"], &[]).await;
    let written = Instant::now();
    let mut crashed = Writer::new("crashed", SHORT);
    crashed.write(&*handles[0], &["ann", "bob"], &[]).await;
    loop {
        let is_online = ok(handles[1].is_online(&ann).await);
        let elapsed = written.elapsed();
        if !is_online {
            assert!(elapsed >= SHORT, "offline after {elapsed:?}");
            break;
        }
        assert!(elapsed < SHORT * 40, "it ends");
        sleep(Duration::from_millis(5)).await;
    }
    let places = ok(handles[1].locate(&bob).await);
    assert_eq!(places, [place("lasting")]);
}

/// A heartbeat is for all users of an instance.
pub async fn one_heartbeat_keeps_all_users_online(handles: Handles) {
    let mut writer = Writer::new("one", SHORT);
    writer.write(&*handles[0], &["ann", "bob"], &[]).await;
    let end = Instant::now() + SHORT * 3;
    let mut in_time = Instant::now();
    while Instant::now() < end {
        sleep_until(in_time + SHORT / 4).await;
        let standing = writer.beat(&*handles[0], 2).await;
        let online = ok(handles[1].online_users(&["ann", "bob"].map(user)).await);
        // On a machine that stood still the lease has ended, as it should.
        if in_time.elapsed() < SHORT {
            assert_eq!(standing, Standing::Kept);
            assert_eq!(online.len(), 2);
        } else if standing == Standing::Lost {
            return;
        }
        in_time = Instant::now();
    }
}

/// The end is final.
pub async fn an_ended_lease_is_lost(handles: Handles) {
    let mut writer = Writer::new("one", LONG);
    writer.write(&*handles[0], &["ann"], &[]).await;
    for _ in 0..2 {
        ok(handles[1].end(writer.lease.id).await);
        assert!(!is_online(&handles, &user("ann")).await);
    }
    assert_eq!(writer.beat(&*handles[0], 1).await, Standing::Lost);
    let update = Update {
        confirmed: 1,
        version: 2,
        came: vec![user("bob")],
        left: Vec::new(),
    };
    let standing = ok(handles[0].update(&writer.lease, &update).await);
    assert_eq!(standing, Standing::Lost);
    assert!(!is_online(&handles, &user("bob")).await);
    ok(handles[0].end(ok(LeaseId::random())).await);
}

/// An instance that the store has forgotten must not continue as if nothing had happened.
pub async fn a_lease_that_the_store_does_not_have_is_lost(handles: Handles) {
    let mut writer = Writer::new("one", LONG);
    writer.version = 3;
    assert_eq!(writer.beat(&*handles[0], 0).await, Standing::Lost);
    let update = Update {
        confirmed: 3,
        version: 4,
        came: vec![user("ann")],
        left: Vec::new(),
    };
    let standing = ok(handles[0].update(&writer.lease, &update).await);
    assert_eq!(standing, Standing::Lost);
    assert!(!is_online(&handles, &user("ann")).await);
}

/// A call whose outcome is unknown may have been made, may not, or may be made later.
pub async fn an_update_may_be_repeated_and_is_not_overtaken(handles: Handles) {
    let (ann, bob) = (user("ann"), user("bob"));
    let mut writer = Writer::new("one", LONG);
    let first = mark(&*handles[0]).await;
    writer.write(&*handles[0], &["ann"], &["nobody"]).await;
    let update = |confirmed, version, came: &[&str], left: &[&str]| Update {
        confirmed,
        version,
        came: came.iter().map(|name| user(name)).collect(),
        left: left.iter().map(|name| user(name)).collect(),
    };
    // The second was made, and the instance does not know.
    for version in [2, 3] {
        let update = update(1, version, &["ann", "bob"], &[]);
        let standing = ok(handles[0].update(&writer.lease, &update).await);
        assert_eq!(standing, Standing::Kept);
    }
    writer.version = 3;
    assert_eq!(writer.beat(&*handles[0], 2).await, Standing::Kept);
    assert_eq!(since(&*handles[1], first).await.len(), 2);
    // One that was given up comes late.
    for late in [
        update(1, 2, &[], &["ann", "bob"]),
        update(0, 1, &[], &["ann"]),
    ] {
        let standing = ok(handles[0].update(&writer.lease, &late).await);
        assert_eq!(standing, Standing::Lost);
    }
    assert!(is_online(&handles, &ann).await && is_online(&handles, &bob).await);
    assert_eq!(writer.beat(&*handles[0], 2).await, Standing::Kept);
}

/// A store that was set back has another version, or other users, than the instance has written.
pub async fn a_heartbeat_notices_what_is_missing(handles: Handles) {
    let mut writer = Writer::new("one", LONG);
    writer.write(&*handles[0], &["ann", "bob"], &[]).await;
    writer.write(&*handles[0], &[], &["bob"]).await;
    assert_eq!(writer.beat(&*handles[0], 1).await, Standing::Kept);
    assert_eq!(writer.beat(&*handles[0], 2).await, Standing::Lost);
    writer.version = 3;
    assert_eq!(writer.beat(&*handles[0], 1).await, Standing::Lost);
    assert!(is_online(&handles, &user("ann")).await);
}

/// A user who is connected is not offline for ever.
pub async fn what_is_lost_is_written_again_with_the_next_heartbeat(handles: Handles) {
    let ann = user("ann");
    let observed = Observed::new(&handles[0]);
    let presence: Arc<dyn Presence> = observed.clone();
    let options = patient().with_lease_ttl(Duration::from_secs(3));
    let tracker = join(&presence, "one", options);
    let _connections = register(&tracker, &[ann.clone(), user("bob")]).await;
    ok(handles[1].end(observed.lease()).await);
    let beats = observed.beats.load(Ordering::SeqCst);
    until("both are online again", async || {
        let online = handles[1].online_users(&["ann", "bob"].map(user)).await;
        ok(online).len() == 2
    })
    .await;
    assert!(observed.beats.load(Ordering::SeqCst) <= beats + 2);
    assert_eq!(ok(handles[1].locate(&ann).await), [place("one")]);
}

/// A heartbeat names no user.
pub async fn ten_thousand_connections_are_one_refresh(handles: Handles) {
    let users = users(10_000);
    let observed = Observed::new(&handles[0]);
    let presence: Arc<dyn Presence> = observed.clone();
    let tracker = join(
        &presence,
        "one",
        patient().with_lease_ttl(Duration::from_secs(9)),
    );
    let _connections = register(&tracker, &users).await;
    let before = observed.updates.load(Ordering::SeqCst);
    let beats = observed.beats.load(Ordering::SeqCst);
    until("a heartbeat was sent", async || {
        observed.beats.load(Ordering::SeqCst) > beats
    })
    .await;
    assert_eq!(observed.updates.load(Ordering::SeqCst), before);
    assert_eq!(ok(handles[1].online_users(&users).await).len(), 10_000);
}
