//! What the behaviours share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{sleep, timeout};

use crate::presence::{
    Heartbeat, Lease, LeaseId, Mark, PresenceError, Registration, Standing, Tracker,
    TrackerOptions, Transition, Transitions, Update, Watch, WatchItem,
};
use crate::{Presence, RoutingInfo, UserId};

/// Longer than any behaviour.
pub(super) const LONG: Duration = Duration::from_secs(600);

/// How long a behaviour waits for what is to happen.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) type Handles = [Arc<dyn Presence>; 2];

pub(super) fn user(name: &str) -> UserId {
    UserId::new(name).expect("the name is valid")
}

pub(super) fn users(count: usize) -> Vec<UserId> {
    (0..count).map(|n| user(&format!("user-{n:05}"))).collect()
}

pub(super) fn place(instance: &str) -> RoutingInfo {
    RoutingInfo {
        instance_id: instance.to_owned(),
        metadata: BTreeMap::from([("url".to_owned(), format!("http://{instance}/"))]),
    }
}

/// An instance whose lease lasts, and whose watches report everything soon.
pub(super) fn patient() -> TrackerOptions {
    TrackerOptions::default()
        .with_lease_ttl(LONG)
        .with_watch_interval(Duration::from_millis(10))
}

pub(super) fn join(presence: &Arc<dyn Presence>, name: &str, options: TrackerOptions) -> Tracker {
    ok(Tracker::join(Arc::clone(presence), place(name), options))
}

/// Registers connections, and waits until the presence has them.
pub(super) async fn register(tracker: &Tracker, users: &[UserId]) -> Vec<Registration> {
    let register = |user: &UserId| ok(tracker.register(user.clone()));
    let registrations: Vec<Registration> = users.iter().map(register).collect();
    for registration in &registrations {
        ok(registration.stored().await);
    }
    registrations
}

pub(super) async fn is_online(handles: &Handles, user: &UserId) -> bool {
    let [one, other] = handles;
    let is_online = ok(one.is_online(user).await);
    assert_eq!(ok(other.is_online(user).await), is_online, "both handles");
    is_online
}

/// Waits until the reply is yes.
pub(super) async fn until(what: &str, mut question: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !question().await {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let asked = timeout(PATIENCE, asking).await;
    assert!(asked.is_ok(), "it never happened that {what}");
}

/// The next report of a watch.
pub(super) async fn next(watch: &mut Watch) -> WatchItem {
    let next = timeout(PATIENCE, watch.next()).await;
    ok(next.expect("a report comes within half a minute"))
}

/// A lease, and the version that the store has of it.
pub(super) struct Writer {
    pub(super) lease: Lease,
    pub(super) version: u64,
}

impl Writer {
    pub(super) fn new(instance: &str, ttl: Duration) -> Self {
        Self {
            lease: Lease {
                id: ok(LeaseId::random()),
                routing: place(instance),
                ttl,
            },
            version: 0,
        }
    }

    /// Writes who came and who left.
    pub(super) async fn write(&mut self, presence: &dyn Presence, came: &[&str], left: &[&str]) {
        let users = |names: &[&str]| names.iter().map(|name| user(name)).collect();
        self.write_users(presence, users(came), users(left)).await;
    }

    pub(super) async fn write_users(
        &mut self,
        presence: &dyn Presence,
        came: Vec<UserId>,
        left: Vec<UserId>,
    ) {
        let update = Update {
            confirmed: self.version,
            version: self.version + 1,
            came,
            left,
        };
        let standing = ok(presence.update(&self.lease, &update).await);
        assert_eq!(standing, Standing::Kept);
        self.version += 1;
    }

    pub(super) async fn beat(&self, presence: &dyn Presence, users: u64) -> Standing {
        let expected = Heartbeat {
            version: self.version,
            users,
        };
        ok(presence.beat(&self.lease, &expected).await)
    }
}

/// Everything that has happened since the mark.
pub(super) async fn since(presence: &dyn Presence, mark: Mark) -> Vec<Transition> {
    let (mut mark, mut all) = (mark, Vec::new());
    loop {
        let page = ok(presence.transitions(Some(mark), 100).await);
        assert!(!page.is_lossy, "nothing is lost");
        all.extend(page.transitions);
        mark = page.mark;
        if !page.has_more {
            return all;
        }
    }
}

pub(super) async fn mark(presence: &dyn Presence) -> Mark {
    ok(presence.transitions(None, 100).await).mark
}

#[track_caller]
pub(super) fn ok<T>(reply: Result<T, PresenceError>) -> T {
    reply.expect("the call succeeds")
}

/// Counts what a tracker writes, and notes its lease.
#[derive(Debug)]
pub(super) struct Observed {
    inner: Arc<dyn Presence>,
    pub(super) beats: AtomicUsize,
    pub(super) updates: AtomicUsize,
    lease: Mutex<Option<LeaseId>>,
}

impl Observed {
    pub(super) fn new(inner: &Arc<dyn Presence>) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            beats: AtomicUsize::new(0),
            updates: AtomicUsize::new(0),
            lease: Mutex::new(None),
        })
    }

    pub(super) fn lease(&self) -> LeaseId {
        let lease = *self.lease.lock().expect("no test panics with the lock");
        lease.expect("the tracker has written something")
    }
}

#[async_trait]
impl Presence for Observed {
    async fn update(&self, lease: &Lease, update: &Update) -> Result<Standing, PresenceError> {
        self.updates.fetch_add(1, Ordering::SeqCst);
        *self.lease.lock().expect("no test panics with the lock") = Some(lease.id);
        self.inner.update(lease, update).await
    }

    async fn beat(&self, lease: &Lease, expected: &Heartbeat) -> Result<Standing, PresenceError> {
        let standing = self.inner.beat(lease, expected).await;
        self.beats.fetch_add(1, Ordering::SeqCst);
        standing
    }

    async fn end(&self, lease: LeaseId) -> Result<(), PresenceError> {
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
        self.inner.transitions(after, limit).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
