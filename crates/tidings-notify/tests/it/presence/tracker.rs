//! What a tracker does when its store is slow, fails or forgets, on a clock of the test's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidings_notify::presence::{
    DEFAULT_GRACE, DEFAULT_LEASE_TTL, DEFAULT_WATCH_INTERVAL, Heartbeat, Lease, LeaseId, Mark,
    PresenceError, Standing, Tracker, TrackerOptions, Transitions, Update, WatchItem,
};
use tidings_notify::{MemoryPresence, Presence, RoutingInfo, UserId};
use tidings_test_support::Log;
use tokio::time::{Instant, advance, sleep, timeout};

use crate::support::{ann, place, user};

/// A presence that can be out of reach, and may have stored an update all the same.
#[derive(Debug, Default)]
struct Flaky {
    inner: MemoryPresence,
    is_down: AtomicBool,
    /// An update is stored, and only the reply is lost.
    loses_replies: AtomicBool,
    /// Heartbeats are accepted, as by a server without room.
    refuses_updates: AtomicBool,
    /// The next question for transitions panics.
    panics: AtomicBool,
    updates: AtomicUsize,
    ends: AtomicUsize,
}

impl Flaky {
    fn reply<T>(&self, done: T) -> Result<T, PresenceError> {
        if self.loses_replies.load(Ordering::SeqCst) {
            return Err(PresenceError::backend("the reply was lost"));
        }
        Ok(done)
    }

    fn check(&self) -> Result<(), PresenceError> {
        self.updates.fetch_add(1, Ordering::SeqCst);
        if self.is_down.load(Ordering::SeqCst) {
            return Err(PresenceError::backend("out of reach"));
        }
        Ok(())
    }
}

#[async_trait]
impl Presence for Flaky {
    async fn update(&self, lease: &Lease, update: &Update) -> Result<Standing, PresenceError> {
        self.check()?;
        if self.refuses_updates.load(Ordering::SeqCst) {
            return Err(PresenceError::backend("there is no room"));
        }
        self.reply(self.inner.update(lease, update).await?)
    }

    async fn beat(&self, lease: &Lease, expected: &Heartbeat) -> Result<Standing, PresenceError> {
        self.check()?;
        self.inner.beat(lease, expected).await
    }

    async fn end(&self, lease: LeaseId) -> Result<(), PresenceError> {
        self.check()?;
        self.ends.fetch_add(1, Ordering::SeqCst);
        self.inner.end(lease).await
    }

    async fn online_users(&self, users: &[UserId]) -> Result<Vec<UserId>, PresenceError> {
        self.inner.online_users(users).await
    }

    async fn locate(&self, user: &UserId) -> Result<Vec<RoutingInfo>, PresenceError> {
        self.inner.locate(user).await
    }

    async fn transitions(
        &self,
        after: Option<Mark>,
        limit: usize,
    ) -> Result<Transitions, PresenceError> {
        self.check()?;
        let is_well = !self.panics.swap(false, Ordering::SeqCst);
        assert!(is_well, "the test wants it");
        self.inner.transitions(after, limit).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

fn flaky() -> (Arc<Flaky>, Tracker) {
    let presence = Arc::new(Flaky::default());
    let options = TrackerOptions::default();
    let tracker = Tracker::join(presence.clone(), place("one"), options).unwrap();
    (presence, tracker)
}

#[tokio::test(start_paused = true)]
async fn an_outage_fails_no_registration_and_is_made_good() {
    let (presence, tracker) = flaky();
    let mut bob = tracker.register(user("bob")).unwrap();
    bob.stored().await.unwrap();
    presence.is_down.store(true, Ordering::SeqCst);
    let connection = tracker.register(ann()).unwrap();
    assert!(matches!(
        connection.stored().await,
        Err(PresenceError::Backend { .. })
    ));
    assert!(bob.unregister().await.is_err());
    // It is not asked without end.
    let updates = presence.updates.load(Ordering::SeqCst);
    sleep(Duration::from_secs(60)).await;
    assert!(presence.updates.load(Ordering::SeqCst) - updates < 40);
    presence.is_down.store(false, Ordering::SeqCst);
    sleep(DEFAULT_LEASE_TTL / 3 + Duration::from_secs(1)).await;
    connection.stored().await.unwrap();
    let online = presence.online_users(&[ann(), user("bob")]).await.unwrap();
    assert_eq!(online, [ann()]);
}

#[tokio::test(start_paused = true)]
async fn regression_an_outage_is_said_to_be_over_when_the_store_has_replied() {
    let log = Log::default();
    let _listening = log.listen();
    let (presence, tracker) = flaky();
    let connection = tracker.register(ann()).unwrap();
    connection.stored().await.unwrap();
    presence.is_down.store(true, Ordering::SeqCst);
    // There is nothing to write, and heartbeats fail.
    sleep(Duration::from_secs(60)).await;
    let over = "who is online can be stored again";
    assert_eq!(log.lines("failed to store who is online").len(), 1);
    assert!(log.lines(over).is_empty());
    presence.is_down.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(log.lines(over).len(), 1);
}

/// A connection that came and went in an outage leaves nothing to write.
#[tokio::test(start_paused = true)]
async fn an_outage_is_not_over_before_the_store_was_asked() {
    let log = Log::default();
    let _listening = log.listen();
    let (presence, tracker) = flaky();
    let connection = tracker.register(ann()).unwrap();
    connection.stored().await.unwrap();
    presence.is_down.store(true, Ordering::SeqCst);
    sleep(DEFAULT_LEASE_TTL / 3 + Duration::from_secs(1)).await;
    assert_eq!(log.lines("failed to store who is online").len(), 1);
    drop(tracker.register(user("bob")).unwrap());
    sleep(Duration::from_secs(60)).await;
    let over = "who is online can be stored again";
    assert!(log.lines(over).is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_a_tracker_that_was_dropped_gets_an_error() {
    let (presence, tracker) = flaky();
    presence.is_down.store(true, Ordering::SeqCst);
    let mut connection = tracker.register(ann()).unwrap();
    let stored = connection.stored();
    drop(tracker);
    assert!(matches!(stored.await, Err(PresenceError::Closed)));
    let unregistered = connection.unregister().await;
    assert!(matches!(unregistered, Err(PresenceError::Closed)));
}

/// The reader asks while the user is away for a moment, which is not reported.
#[tokio::test(start_paused = true)]
async fn who_is_away_for_less_than_the_grace_time_is_online_for_those_who_watch() {
    let (_presence, tracker) = flaky();
    let mut watch = tracker.watch().await.unwrap();
    let mut connection = tracker.register(ann()).unwrap();
    connection.stored().await.unwrap();
    assert_eq!(watch.next().await.unwrap(), WatchItem::Online(ann()));
    connection.unregister().await.unwrap();
    let ask = ["bob", "ann"].map(user);
    assert_eq!(tracker.online_users(&ask).await.unwrap(), [ann()]);
    let mut connection = tracker.register(ann()).unwrap();
    connection.stored().await.unwrap();
    assert_eq!(tracker.online_users(&ask).await.unwrap(), [ann()]);
    // Away for good: there is a report, and no other before.
    connection.unregister().await.unwrap();
    assert_eq!(watch.next().await.unwrap(), WatchItem::Offline(ann()));
    assert!(tracker.online_users(&ask).await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_does_no_harm() {
    let (presence, tracker) = flaky();
    presence.loses_replies.store(true, Ordering::SeqCst);
    let connection = tracker.register(ann()).unwrap();
    assert!(connection.stored().await.is_err());
    assert!(presence.is_online(&ann()).await.unwrap());
    drop(connection);
    sleep(Duration::from_secs(1)).await;
    presence.loses_replies.store(false, Ordering::SeqCst);
    let bob = tracker.register(user("bob")).unwrap();
    bob.stored().await.unwrap();
    let online = presence.online_users(&[ann(), user("bob")]).await.unwrap();
    assert_eq!(online, [user("bob")]);
    sleep(DEFAULT_LEASE_TTL * 3).await;
    assert!(presence.is_online(&user("bob")).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn regression_a_refused_write_takes_no_one_offline() {
    let (presence, tracker) = flaky();
    let everyone = ["ann", "bob", "cid"].map(user);
    let _ann = tracker.register(ann()).unwrap();
    let mut cid = tracker.register(user("cid")).unwrap();
    cid.stored().await.unwrap();
    presence.refuses_updates.store(true, Ordering::SeqCst);
    let bob = tracker.register(user("bob")).unwrap();
    assert!(bob.stored().await.is_err());
    assert!(cid.unregister().await.is_err());
    sleep(DEFAULT_LEASE_TTL * 3).await;
    let online = presence.online_users(&everyone).await.unwrap();
    assert_eq!(online, ["ann", "cid"].map(user));
    presence.refuses_updates.store(false, Ordering::SeqCst);
    bob.stored().await.unwrap();
    let online = presence.online_users(&everyone).await.unwrap();
    assert_eq!(online, ["ann", "bob"].map(user));
}

/// The store has a later version than the tracker knows of, and refuses its heartbeats.
#[tokio::test(start_paused = true)]
async fn a_lost_reply_gives_no_lease_up() {
    let (presence, tracker) = flaky();
    let _ann = tracker.register(ann()).unwrap();
    let bob = tracker.register(user("bob")).unwrap();
    bob.stored().await.unwrap();
    presence.loses_replies.store(true, Ordering::SeqCst);
    drop(bob);
    sleep(DEFAULT_LEASE_TTL * 3).await;
    presence.loses_replies.store(false, Ordering::SeqCst);
    sleep(DEFAULT_LEASE_TTL * 3).await;
    let online = presence.online_users(&[ann(), user("bob")]).await.unwrap();
    assert_eq!(online, [ann()]);
    assert_eq!(presence.ends.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn a_tracker_without_connections_writes_nothing() {
    let (presence, tracker) = flaky();
    sleep(DEFAULT_LEASE_TTL * 10).await;
    assert_eq!(presence.updates.load(Ordering::SeqCst), 0);
    drop(tracker);
}

/// The process was suspended: its lease ended, and others have cleaned up behind it.
#[tokio::test(start_paused = true)]
async fn an_instance_that_was_paused_comes_back() {
    let presence = MemoryPresence::new();
    let shared: Arc<dyn Presence> = Arc::new(presence.clone());
    let tracker = Tracker::join(shared.clone(), place("one"), TrackerOptions::default()).unwrap();
    let connection = tracker.register(ann()).unwrap();
    connection.stored().await.unwrap();
    let begun = presence.transitions(None, 10).await.unwrap().mark;
    // No task runs while the clock jumps.
    advance(DEFAULT_LEASE_TTL * 2).await;
    let page = presence.transitions(Some(begun), 10).await.unwrap();
    assert_eq!(page.transitions.len(), 1, "{page:?}");
    sleep(DEFAULT_LEASE_TTL / 3).await;
    assert_eq!(shared.locate(&ann()).await.unwrap(), [place("one")]);
}

#[tokio::test(start_paused = true)]
async fn grace_is_counted_from_going_offline() {
    let (_presence, tracker) = flaky();
    let mut watch = tracker.watch().await.unwrap();
    let mut connection = tracker.register(ann()).unwrap();
    assert_eq!(watch.next().await.unwrap(), WatchItem::Online(ann()));
    let left = Instant::now();
    connection.unregister().await.unwrap();
    sleep(DEFAULT_GRACE / 2).await;
    // A short visit begins the time anew.
    let mut visit = tracker.register(ann()).unwrap();
    visit.stored().await.unwrap();
    visit.unregister().await.unwrap();
    assert_eq!(watch.next().await.unwrap(), WatchItem::Offline(ann()));
    let waited = left.elapsed();
    assert!(waited >= DEFAULT_GRACE * 3 / 2);
    assert!(waited <= DEFAULT_GRACE * 3 / 2 + DEFAULT_WATCH_INTERVAL * 2);
}

/// All watches share one question, and without any nothing is asked.
#[tokio::test(start_paused = true)]
async fn watches_cost_one_question_for_each_interval() {
    let (presence, tracker) = flaky();
    let mut watches = Vec::new();
    for _ in 0..100 {
        watches.push(tracker.watch().await.unwrap());
    }
    let updates = || presence.updates.load(Ordering::SeqCst);
    let before = updates();
    sleep(DEFAULT_WATCH_INTERVAL * 50).await;
    assert!((49..=51).contains(&(updates() - before)), "{}", updates());
    drop(watches);
    sleep(DEFAULT_WATCH_INTERVAL * 2).await;
    let before = updates();
    sleep(DEFAULT_WATCH_INTERVAL * 50).await;
    assert_eq!(updates(), before);
}

#[tokio::test(start_paused = true)]
async fn regression_a_presence_that_panics_ends_no_watch() {
    let log = Log::default();
    let _listening = log.listen();
    let (presence, tracker) = flaky();
    let mut watch = tracker.watch().await.unwrap();
    presence.panics.store(true, Ordering::SeqCst);
    sleep(DEFAULT_WATCH_INTERVAL * 2).await;
    assert!(!presence.panics.load(Ordering::SeqCst));
    assert_eq!(log.lines("watching presence panicked").len(), 1);
    let _ann = tracker.register(ann()).unwrap();
    let reported = timeout(Duration::from_secs(60), watch.next()).await;
    assert_eq!(reported.unwrap().unwrap(), WatchItem::Online(ann()));
}

#[tokio::test(start_paused = true)]
async fn a_watch_reports_what_the_store_no_longer_keeps() {
    let presence: Arc<dyn Presence> = Arc::new(MemoryPresence::new().with_kept_transitions(3));
    let slow = TrackerOptions::default().with_watch_interval(Duration::from_secs(3600));
    let tracker = Tracker::join(presence, place("one"), slow).unwrap();
    // The first question is asked at once.
    sleep(Duration::from_secs(1)).await;
    let mut watch = tracker.watch().await.unwrap();
    let mut connections = Vec::new();
    for n in 0..5 {
        connections.push(tracker.register(user(&format!("user-{n}"))).unwrap());
        connections[n].stored().await.unwrap();
    }
    assert_eq!(watch.next().await.unwrap(), WatchItem::Lagged);
    for n in 2..5 {
        let online = WatchItem::Online(user(&format!("user-{n}")));
        assert_eq!(watch.next().await.unwrap(), online);
    }
}

#[tokio::test]
async fn options_outside_their_range_are_refused() {
    let presence: Arc<dyn Presence> = Arc::new(MemoryPresence::new());
    let default = TrackerOptions::default;
    for (options, wrong) in [
        (
            default().with_lease_ttl(Duration::from_millis(29)),
            "lease_ttl",
        ),
        (
            default().with_lease_ttl(Duration::from_secs(3601)),
            "lease_ttl",
        ),
        (
            default().with_watch_interval(Duration::ZERO),
            "watch_interval",
        ),
        (
            default().with_watch_interval(Duration::MAX),
            "watch_interval",
        ),
        (default().with_grace(Duration::MAX), "grace"),
    ] {
        let refused = Tracker::join(presence.clone(), place("one"), options);
        match refused.unwrap_err() {
            PresenceError::InvalidOption { field, .. } => assert_eq!(field, wrong),
            other => panic!("{other:?}"),
        }
    }
}
