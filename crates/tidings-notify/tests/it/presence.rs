//! Who is online, and where.

use std::collections::BTreeMap;
use std::time::Duration;

use tidings_notify::RoutingInfo;
use tidings_notify::presence::{DEFAULT_LEASE_TTL, Lease, PresenceError};
use tokio::time::advance;

use crate::support::{ann, presence, user};

fn place(instance: &str) -> RoutingInfo {
    RoutingInfo {
        instance_id: instance.to_owned(),
        metadata: BTreeMap::from([("url".to_owned(), format!("http://{instance}/"))]),
    }
}

#[tokio::test]
async fn a_user_is_offline_then_online_then_offline() {
    let presence = presence();
    assert!(!presence.is_online(&ann()).await.unwrap());
    let mut connection = presence.register(ann(), place("one")).await.unwrap();
    assert!(presence.is_online(&ann()).await.unwrap());
    connection.unregister().await.unwrap();
    assert!(!presence.is_online(&ann()).await.unwrap());
}

#[tokio::test]
async fn a_user_is_online_until_the_last_registration_leaves() {
    let presence = presence();
    let phone = presence.register(ann(), place("one")).await.unwrap();
    let laptop = presence.register(ann(), place("one")).await.unwrap();
    drop(phone);
    assert!(presence.is_online(&ann()).await.unwrap());
    drop(laptop);
    assert!(!presence.is_online(&ann()).await.unwrap());
}

#[tokio::test]
async fn unregistering_twice_is_harmless() {
    let presence = presence();
    let mut first = presence.register(ann(), place("one")).await.unwrap();
    let _second = presence.register(ann(), place("one")).await.unwrap();
    first.unregister().await.unwrap();
    first.unregister().await.unwrap();
    // A refresh that comes late does not bring it back.
    first.refresh().await.unwrap();
    drop(first);
    assert!(presence.is_online(&ann()).await.unwrap());
    assert_eq!(presence.locate(&ann()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn online_users_filters_and_keeps_the_order() {
    let presence = presence();
    let names = ["dan", "ann", "cid", "bob"].map(user);
    let _dan = presence.register(user("dan"), place("one")).await.unwrap();
    let _bob = presence.register(user("bob"), place("one")).await.unwrap();
    let _cid = presence.register(user("cid"), place("one")).await.unwrap();
    let online = presence.online_users(&names).await.unwrap();
    assert_eq!(online, ["dan", "cid", "bob"].map(user));
    assert_eq!(presence.online_users(&[]).await.unwrap(), []);
}

#[tokio::test]
async fn locate_names_every_instance_once_with_its_metadata() {
    let presence = presence();
    let unknown = presence.locate(&ann()).await;
    assert!(
        matches!(unknown, Err(PresenceError::NotFound)),
        "{unknown:?}"
    );
    let _phone = presence.register(ann(), place("one")).await.unwrap();
    let _laptop = presence.register(ann(), place("two")).await.unwrap();
    let _tablet = presence.register(ann(), place("two")).await.unwrap();
    let _bob = presence
        .register(user("bob"), place("three"))
        .await
        .unwrap();
    let mut places = presence.locate(&ann()).await.unwrap();
    places.sort_by(|a, b| a.instance_id.cmp(&b.instance_id));
    assert_eq!(places, [place("one"), place("two")]);
}

#[tokio::test]
async fn calls_after_close_answer_closed() {
    let presence = presence();
    let mut connection = presence.register(ann(), place("one")).await.unwrap();
    presence.close().await;
    presence.close().await;
    let closed = |error| matches!(error, PresenceError::Closed);
    assert!(closed(presence.is_online(&ann()).await.unwrap_err()));
    assert!(closed(presence.online_users(&[ann()]).await.unwrap_err()));
    assert!(closed(presence.locate(&ann()).await.unwrap_err()));
    assert!(closed(
        presence.register(ann(), place("one")).await.unwrap_err()
    ));
    assert!(closed(connection.refresh().await.unwrap_err()));
    assert!(closed(connection.unregister().await.unwrap_err()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_concurrent_registrations_up_and_down_end_offline() {
    let presence = presence();
    let registering = (0..100).map(|n| {
        let presence = presence.clone();
        let place = place(&format!("instance-{}", n % 5));
        tokio::spawn(async move { presence.register(ann(), place).await.unwrap() })
    });
    let mut connections = Vec::new();
    for task in registering.collect::<Vec<_>>() {
        connections.push(task.await.unwrap());
    }
    assert_eq!(presence.locate(&ann()).await.unwrap().len(), 5);
    let leaving = connections
        .into_iter()
        .map(|mut connection| tokio::spawn(async move { connection.unregister().await.unwrap() }));
    for task in leaving.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert!(!presence.is_online(&ann()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn without_refresh_a_user_is_offline_after_the_time_to_live() {
    let presence = presence();
    let alive = presence.register(ann(), place("one")).await.unwrap();
    let _dead = presence.register(ann(), place("two")).await.unwrap();
    let _gone = presence.register(user("bob"), place("two")).await.unwrap();
    advance(Duration::from_millis(74_999)).await;
    assert!(presence.is_online(&user("bob")).await.unwrap());
    alive.refresh().await.unwrap();
    advance(Duration::from_millis(1)).await;
    assert!(!presence.is_online(&user("bob")).await.unwrap());
    assert_eq!(presence.locate(&ann()).await.unwrap(), [place("one")]);
    advance(DEFAULT_LEASE_TTL).await;
    assert!(!presence.is_online(&ann()).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn regression_a_lost_lease_comes_back_with_the_next_refresh() {
    let presence = presence();
    let connection = presence.register(ann(), place("one")).await.unwrap();
    presence.release(connection.lease()).await.unwrap();
    assert!(!presence.is_online(&ann()).await.unwrap());
    connection.refresh().await.unwrap();
    assert!(presence.is_online(&ann()).await.unwrap());

    advance(DEFAULT_LEASE_TTL * 3).await;
    assert!(!presence.is_online(&ann()).await.unwrap());
    connection.refresh().await.unwrap();
    assert_eq!(presence.locate(&ann()).await.unwrap(), [place("one")]);
}

#[tokio::test]
async fn releasing_a_lease_that_is_not_held_touches_no_other() {
    let presence = presence();
    let _connection = presence.register(ann(), place("one")).await.unwrap();
    let stranger = Lease {
        user: ann(),
        id: 1,
        routing: place("one"),
    };
    presence.release(&stranger).await.unwrap();
    presence.abandon(&stranger);
    assert!(presence.is_online(&ann()).await.unwrap());
}
