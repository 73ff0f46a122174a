//! The server as its users meet it; every figure beside its baseline of the same run.
//!
//! `cargo bench -p tidings-server --bench server [-- seconds] [part]`
//!
//! | part | measures |
//! |---|---|
//! | throughput | 64 posters for 100 users: without an endpoint, with one fast endpoint for all, with one for each user; then in batches |
//! | isolation | a healthy endpoint alone, then beside 100 stalled ones with 100,000 deliveries |
//! | burst | 4,000 events to one endpoint that takes 20 ms: order and time |
//! | postgres | the first two of `throughput` and the batches on the PostgreSQL database of `DATABASE_URL`, beside inserts without a server (of the least row, batch after batch and by callers that wait, and of the rows of an accept), the store of the logs alone, and requests that need no database |
//! | instances | 500 notifications a second to one instance, on the screens of another over the same database |
//! | idle | what 1,000 idle streams cost the database |
//!
//! The last three need `DATABASE_URL`: `scripts/services cargo bench …` sets it.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a benchmark")]

mod arrivals;
mod instances;
mod server;
mod webhooks;

use std::time::Duration;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let seconds = arguments.iter().find_map(|argument| argument.parse().ok());
    let length = Duration::from_secs(seconds.unwrap_or(10));
    let parts = [
        "throughput",
        "isolation",
        "burst",
        "postgres",
        "instances",
        "idle",
    ];
    let named = |part: &str| arguments.iter().any(|argument| argument == part);
    let is_wanted = |part| named(part) || !parts.iter().any(|part| named(part));
    if is_wanted("throughput") {
        webhooks::throughput(length).await;
    }
    if is_wanted("isolation") {
        webhooks::isolation(length).await;
    }
    if is_wanted("burst") {
        webhooks::burst().await;
    }
    if is_wanted("postgres") {
        instances::beside_the_database_alone(length).await;
    }
    if is_wanted("instances") {
        instances::to_the_screens_of_another(length).await;
    }
    if is_wanted("idle") {
        instances::idle(length).await;
    }
}

pub(crate) fn per_second(count: usize, time: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap()) / time.as_secs_f64()
}
