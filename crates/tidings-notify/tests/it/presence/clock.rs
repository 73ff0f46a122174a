//! The clock of a server is set: an hour forward, and back.

use std::sync::Arc;
use std::time::Duration;

use tidings_notify::Presence;
use tokio::time::Instant;

use super::redis::Client;
use super::{PATIENCE, quick, until_located};
use crate::redis::{prefix, url};
use crate::support::ann;

/// The next heartbeat makes a lease last for its time to live by the new clock. `forward` sets the clock by
/// so many hours, and `left` returns how many milliseconds the longest lease lasts.
async fn is_set(
    presence: Arc<dyn Presence>,
    forward: impl AsyncFn(i32),
    left: impl AsyncFn() -> i64,
) {
    let tracker = quick(&presence, "one");
    let connection = tracker.register(ann()).unwrap();
    connection.stored().await.unwrap();
    forward(1).await;
    until_located(&presence, &ann(), "one").await;
    forward(-1).await;
    let begun = Instant::now();
    while left().await > 3_000 {
        assert!(begun.elapsed() < PATIENCE, "the lease lasts too long");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(presence.is_online(&ann()).await.unwrap());
    tracker.close().await.unwrap();
    assert!(!presence.is_online(&ann()).await.unwrap());
}

#[tokio::test]
async fn leases_follow_the_clock_of_a_postgres_server() {
    let ([presence, _], schema) = super::postgres::fresh().await;
    let client = schema.client().await;
    let forward = async |hours: i32| {
        let shift = format!(
            "UPDATE tidings_presence_lease SET ends_at = ends_at - {hours} * interval '1 hour'"
        );
        let leases = client.execute(&shift, &[]).await.unwrap();
        assert_eq!(leases, 1);
    };
    let left = async || {
        let left =
            "SELECT floor(extract(epoch FROM max(ends_at) - clock_timestamp()) * 1000)::bigint
             FROM tidings_presence_lease";
        client.query_one(left, &[]).await.unwrap().get(0)
    };
    is_set(presence, forward, left).await;
}

#[tokio::test]
async fn leases_follow_the_clock_of_a_redis_server() {
    let prefix = prefix();
    let presence = super::redis::open(&url(), &prefix).await;
    let client = Client::connect(&url()).await;
    let leases = format!("{{{prefix}}}:lease");
    let forward = async |hours: i32| {
        let shift = "local leases = redis.call('ZRANGE', KEYS[1], 0, -1)
            for _, lease in ipairs(leases) do
              redis.call('ZINCRBY', KEYS[1], -3600000 * ARGV[1], lease)
            end
            return #leases";
        let shifted: u64 = client
            .run(&["EVAL", shift, "1", &leases, &hours.to_string()])
            .await;
        assert_eq!(shifted, 1);
    };
    let left = async || {
        let left = "local time = redis.call('TIME')
            return redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')[2] - time[1] * 1000";
        client.run(&["EVAL", left, "1", &leases]).await
    };
    is_set(presence, forward, left).await;
}
