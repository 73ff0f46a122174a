//! Presence on a copy that takes over from its server, and lacks something.

use std::sync::Arc;
use std::time::Duration;

use tidings_notify::Presence;
use tidings_notify::presence::WatchItem::{Lagged, Online};
use tidings_notify::presence::{Registration, Tracker, Watch};
use tidings_test_support::{PostgresServer, Proxy, RedisServer};

use super::{postgres, quick, redis, soon, until_online, until_reported};
use crate::redis_failover::{follow, until_alike};
use crate::support::{ann, place, user};

/// A standby has nothing of tables that are not logged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_standby_of_postgres_gets_everything() {
    let primary = PostgresServer::start().unwrap();
    let way = Proxy::start(&primary.url()).await.unwrap();
    let instance = Instance::start(postgres::impatient(way.url()).await).await;
    let standby = primary.start_standby(Duration::ZERO).unwrap();
    let instance = instance.changed().await;
    way.lead_to(&standby.url()).unwrap();
    primary.crash().unwrap();
    standby.promote().unwrap();
    instance.expect_written_again().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promoted_replica_of_redis_gets_what_it_lacks() {
    let mut primary = RedisServer::start().await.unwrap();
    let replica = RedisServer::start().await.unwrap();
    let way = Proxy::start(&primary.url()).await.unwrap();
    let link = Proxy::start(&primary.url()).await.unwrap();
    follow(&replica, &primary, &link).await;
    let instance = Instance::start(redis::impatient(way.url()).await).await;
    until_alike(&replica, &primary).await;
    link.freeze();
    let instance = instance.changed().await;
    way.lead_to(&replica.url()).unwrap();
    primary.stop().unwrap();
    replica.promote().unwrap();
    instance.expect_written_again().await;
}

/// An instance with connections, which continues while its server is replaced.
struct Instance {
    presence: Arc<dyn Presence>,
    tracker: Tracker,
    watch: Watch,
    connections: Vec<Registration>,
}

impl Instance {
    /// Ann and Bob are online.
    async fn start(presence: Arc<dyn Presence>) -> Self {
        let tracker = quick(&presence, "one");
        let mut connections = Vec::new();
        for name in ["ann", "bob"] {
            let connection = tracker.register(user(name)).unwrap();
            connection.stored().await.unwrap();
            connections.push(connection);
        }
        Self {
            watch: tracker.watch().await.unwrap(),
            presence,
            tracker,
            connections,
        }
    }

    /// Bob leaves, and Cid comes.
    async fn changed(mut self) -> Self {
        drop(self.connections.pop());
        let cid = self.tracker.register(user("cid")).unwrap();
        cid.stored().await.unwrap();
        self.connections.push(cid);
        until_reported(&mut self.watch, &self.presence, Online(user("cid"))).await;
        self
    }

    async fn expect_written_again(mut self) {
        let everyone = ["ann", "bob", "cid"].map(user);
        let lagged = async { while self.watch.next().await.unwrap() != Lagged {} };
        soon(lagged).await;
        until_online(&self.presence, &everyone, &["ann", "cid"].map(user)).await;
        assert_eq!(self.presence.locate(&ann()).await.unwrap(), [place("one")]);
        let dan = self.tracker.register(user("dan")).unwrap();
        dan.stored().await.unwrap();
        until_reported(&mut self.watch, &self.presence, Online(user("dan"))).await;
        self.tracker.close().await.unwrap();
        until_online(&self.presence, &everyone, &[]).await;
    }
}
