//! What presence does while its server is away, and after.

use std::sync::Arc;
use std::time::Duration;

use tidings_notify::Presence;
use tidings_notify::presence::WatchItem;
use tidings_test_support::{Fault, Outage, PostgresOutage, RedisOutage, RedisServer};

use super::{postgres, quick, redis, soon, until_online, until_reported};
use crate::support::{ann, place, user};

#[tokio::test]
async fn postgres_is_written_again_after_every_fault() {
    let mut outage = PostgresOutage::start().await.unwrap();
    every_fault_is_survived(&mut outage, async |url| postgres::impatient(&url).await).await;
}

#[tokio::test]
async fn redis_is_written_again_after_every_fault() {
    let mut outage = RedisOutage::start().await.unwrap();
    every_fault_is_survived(&mut outage, async |url| redis::impatient(&url).await).await;
}

/// Connections come and go while the server is away. When it is back, it gets them.
async fn every_fault_is_survived(
    outage: &mut dyn Outage,
    open: impl AsyncFn(String) -> Arc<dyn Presence>,
) {
    let presence = open(outage.url().to_owned()).await;
    let everyone = ["ann", "bob", "cid"].map(user);
    for fault in Fault::ALL {
        let tracker = quick(&presence, "one");
        let mut watch = tracker.watch().await.unwrap();
        let _ann = tracker.register(ann()).unwrap();
        let bob = tracker.register(user("bob")).unwrap();
        until_online(&presence, &everyone, &everyone[..2]).await;
        outage.begin(fault).await.unwrap();
        drop(bob);
        let cid = tracker.register(user("cid")).unwrap();
        // It says so, and continues.
        let stored = tokio::time::timeout(Duration::from_secs(30), cid.stored()).await;
        assert!(stored.unwrap().is_err(), "{fault:?}");
        outage.restore().await.unwrap();
        let direct = open(outage.direct_url()).await;
        until_online(&direct, &everyone, &["ann", "cid"].map(user)).await;
        cid.stored().await.unwrap();
        until_reported(&mut watch, &direct, WatchItem::Online(user("cid"))).await;
        assert_eq!(direct.locate(&ann()).await.unwrap(), [place("one")]);
        drop(watch);
        tracker.close().await.unwrap();
        until_online(&direct, &everyone, &[]).await;
    }
}

/// A server without its data gets everything again, and watches get a report that something is missing.
#[tokio::test]
async fn redis_is_written_again_after_a_restart_without_its_data() {
    let mut server = RedisServer::start().await.unwrap();
    let presence = redis::impatient(&server.url()).await;
    let tracker = quick(&presence, "one");
    let mut watch = tracker.watch().await.unwrap();
    let connection = tracker.register(ann()).unwrap();
    connection.stored().await.unwrap();
    assert_eq!(watch.next().await.unwrap(), WatchItem::Online(ann()));
    server.stop().unwrap();
    server.start_again().await.unwrap();
    until_online(&presence, &[ann()], &[ann()]).await;
    assert_eq!(soon(watch.next()).await.unwrap(), WatchItem::Lagged);
}

/// A connection that is silent is given up, and another one made.
#[tokio::test]
async fn postgres_and_redis_replace_a_frozen_connection() {
    let postgres = PostgresOutage::start().await.unwrap();
    let redis = RedisOutage::start().await.unwrap();
    for (proxy, presence) in [
        (postgres.proxy(), postgres::impatient(postgres.url()).await),
        (redis.proxy(), redis::impatient(redis.url()).await),
    ] {
        let tracker = quick(&presence, "one");
        let connection = tracker.register(ann()).unwrap();
        connection.stored().await.unwrap();
        proxy.freeze();
        until_online(&presence, &[ann(), user("bob")], &[ann()]).await;
        let bob = tracker.register(user("bob")).unwrap();
        until_online(&presence, &[ann(), user("bob")], &[ann(), user("bob")]).await;
        drop(bob);
    }
}
