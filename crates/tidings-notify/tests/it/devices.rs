//! Devices of a user on several instances: over each store, and by each way in which instances hear of each
//! other, every device gets each event once and in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tidings_notify::sqlite::{SqliteOptions, SqliteStore};
use tidings_notify::{
    Event, Item, MemoryStore, Notifier, Presence, Since, Store, Subscription, UserId,
};

use crate::database::Schema;
use crate::instances::Switchboard;
use crate::support::{NEVER, Observed, connect, draft, number, open_sqlite, presence, user};

const INSTANCES: usize = 3;
const EVENTS: u8 = 30;

/// Names that a layer below might take for something else.
const NAMES: [&str; 6] = ["ann", "Ann", "*", "a:b{c}%20", "e\u{301}", "\u{e9}"];

/// How the instances hear of what the others have stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Presence names the instances, and a router carries events to them.
    Router,
    /// The application passes on hints.
    Hints,
    /// The store wakes.
    Wakes,
    /// Nothing but the sweep.
    Sweep,
}

async fn three<S: Store>(open: impl AsyncFn() -> S) -> [Arc<dyn Store>; INSTANCES] {
    [
        Arc::new(open().await),
        Arc::new(open().await),
        Arc::new(open().await),
    ]
}

#[tokio::test]
async fn every_device_gets_each_event_once_over_memory() {
    for way in [Way::Router, Way::Hints, Way::Sweep] {
        let store = MemoryStore::new();
        deliver(three(async || store.clone()).await, way).await;
    }
}

#[tokio::test]
async fn every_device_gets_each_event_once_over_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let open = async || {
        SqliteStore::open(open_sqlite(&folder), SqliteOptions::default())
            .await
            .unwrap()
    };
    for way in [Way::Router, Way::Hints, Way::Sweep] {
        deliver(three(open).await, way).await;
    }
}

#[tokio::test]
async fn every_device_gets_each_event_once_over_postgres() {
    let schema = Schema::create().await;
    for way in [Way::Router, Way::Wakes, Way::Sweep] {
        deliver(three(async || schema.store().await).await, way).await;
    }
}

#[tokio::test]
async fn every_device_gets_each_event_once_over_redis() {
    let prefix = crate::redis::prefix();
    for way in [Way::Router, Way::Wakes, Way::Sweep] {
        deliver(three(async || crate::redis::open(&prefix).await).await, way).await;
    }
}

/// Notifiers of one process may share a store.
#[tokio::test]
async fn regression_clones_of_a_store_wake_each_other() {
    let schema = Schema::create().await;
    let store = schema.store().await;
    deliver(three(async || store.clone()).await, Way::Wakes).await;
    let store = crate::redis::open(&crate::redis::prefix()).await;
    deliver(three(async || store.clone()).await, Way::Wakes).await;
}

/// Pushes from all instances at the same time to devices on all of them.
async fn deliver(stores: [Arc<dyn Store>; INSTANCES], way: Way) {
    let limit = Duration::from_secs(60);
    let done = tokio::time::timeout(limit, deliver_all(stores, way)).await;
    done.unwrap_or_else(|_| panic!("{way:?} brings nothing within a minute"));
}

async fn deliver_all(stores: [Arc<dyn Store>; INSTANCES], way: Way) {
    let users = NAMES.map(|name| user(&format!("{name}{:x}", fastrand::u64(..))));
    let (presence, board) = (presence(), Switchboard::default());
    let instances: Vec<_> = stores
        .into_iter()
        .enumerate()
        .map(|(at, store)| instance(store, way, &at.to_string(), &presence, &board))
        .collect();
    let mut devices = Vec::new();
    let mut leases = Vec::new();
    for (at, instance) in instances.iter().enumerate() {
        for user in &users {
            leases.push(connect(&presence, user.clone(), &at.to_string()).await);
            for _ in 0..2 {
                devices.push(
                    instance
                        .subscribe(user.clone(), Since::Start)
                        .await
                        .unwrap(),
                );
            }
        }
    }
    let pushing = instances.iter().enumerate().map(async |(at, instance)| {
        for number in 0..u64::from(EVENTS) {
            for user in &users {
                let draft = draft(at as u64 * u64::from(EVENTS) + number).with_user(user.clone());
                instance.push(draft).await.unwrap();
                if way == Way::Hints {
                    for instance in &instances {
                        instance.hint(user);
                    }
                }
            }
        }
    });
    let receiving = join_all(devices.iter_mut().map(all_events));
    let (_, received) = tokio::join!(join_all(pushing), receiving);
    for (device, events) in devices.iter().zip(received) {
        check(device.user(), &events);
    }
    for instance in &instances {
        instance.close().await.unwrap();
    }
}

fn instance(
    store: Arc<dyn Store>,
    way: Way,
    name: &str,
    presence: &Arc<dyn Presence>,
    board: &Switchboard,
) -> Notifier {
    let store = match way {
        Way::Wakes => store,
        _ => Arc::new(Observed::silent(store)),
    };
    let builder = match way {
        Way::Sweep => Notifier::builder(store).poll_interval(Duration::from_millis(20)),
        _ => Notifier::builder(store).poll_interval(NEVER),
    };
    let builder = match way {
        Way::Router => builder
            .presence(presence.clone())
            .router(Arc::new(board.clone()))
            .instance_id(name),
        _ => builder,
    };
    let notifier = builder.build().unwrap();
    board.connect(name, &notifier);
    notifier
}

async fn all_events(device: &mut Subscription) -> Vec<Arc<Event>> {
    let mut events = Vec::new();
    while events.len() < INSTANCES * usize::from(EVENTS) {
        match device.next().await.unwrap() {
            Item::Event(event) => events.push(event),
            Item::Gap(gap) => panic!("{gap:?}"),
            _ => {}
        }
    }
    events
}

/// Dense numbers from one, the events of each instance in their order, and no events of another user.
fn check(user: &UserId, events: &[Arc<Event>]) {
    let mut last = BTreeMap::new();
    for (event, seq) in events.iter().zip(1..) {
        assert_eq!((event.id.seq, &event.user), (seq, user));
        let (instance, number) = (
            number(event) / u64::from(EVENTS),
            number(event) % u64::from(EVENTS),
        );
        let earlier = last.insert(instance, number);
        assert_eq!(earlier.map_or(0, |earlier| earlier + 1), number, "{user}");
    }
}
