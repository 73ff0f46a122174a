//! The guarantees under `kill -9`, through real sockets.

use tidings_test_support::{RedisServer, Schema};

use crate::load::{Load, Tolerance};
use crate::support::Home;

const KILLS: usize = 10;
const SCHEDULE: &str = "0s,100ms,100ms,1s,1s,1s,1s,1s,1s,1s";

/// One server is there or not.
const ALONE: Tolerance = Tolerance {
    refusals: false,
    rewinds: false,
};

/// What a killed instance has locked in the database is free when the database has noticed: until then a
/// request may be refused.
const SHARED: Tolerance = Tolerance {
    refusals: true,
    rewinds: false,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_lose_nothing_repeat_nothing_and_keep_the_order() {
    let home = Home::with(&["--webhook-schedule", SCHEDULE]);
    kills_lose_nothing_repeat_nothing_and_keep_the_order(&home, 1, 10_000, ALONE).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_of_three_instances_lose_nothing_repeat_nothing_and_keep_the_order() {
    let schema = Schema::create().await;
    let arguments = ["--webhook-schedule", SCHEDULE, "--lease", "2s"];
    let home = Home::on(&schema.url(), &arguments);
    kills_lose_nothing_repeat_nothing_and_keep_the_order(&home, 3, 5_000, SHARED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_kills_of_three_instances_beside_redis_lose_nothing_repeat_nothing_and_keep_the_order()
{
    let (schema, redis) = (Schema::create().await, RedisServer::start().await.unwrap());
    let beside = format!("--redis={}", redis.url());
    let arguments = ["--webhook-schedule", SCHEDULE, "--lease=2s", &beside];
    let home = Home::on(&schema.url(), &arguments);
    kills_lose_nothing_repeat_nothing_and_keep_the_order(&home, 3, 5_000, SHARED).await;
}

/// Kills one server after another, each at a time of its own, and starts it again.
async fn kills_lose_nothing_repeat_nothing_and_keep_the_order(
    home: &Home,
    instances: usize,
    notifications: usize,
    tolerance: Tolerance,
) {
    let starting = (0..instances).map(|_| home.start());
    let mut servers = futures_util::future::join_all(starting).await;
    let load = Load::start(&servers, notifications, tolerance).await;
    for kill in 1..=KILLS {
        load.has_reached(kill * 100 / (KILLS + 1)).await;
        servers.remove(0).kill().await;
        servers.push(home.start().await);
        load.move_to(&servers);
    }
    load.finish(&servers[0]).await;
}
