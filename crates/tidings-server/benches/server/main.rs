//! The server as its users meet it: a process of its own, beside its baseline of the same run.
//!
//! `cargo bench -p tidings-server --bench server -- PART...`, with the benchmarks of docs/performance.md that
//! are of the server as parts: `accept`, `webhooks`, `postgres`, `instances`, `idle`, `fan-out`, `live`,
//! `reconnect`, `start`, `growth`, `isolation`, `burst`, `idle-database`. `scripts/bench` also installs the
//! server to compare with.
//!
//! `postgres`, `instances` and `idle-database` need `DATABASE_URL`: `scripts/services --durable cargo bench …`
//! sets it.

#![allow(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod accept;
mod arrivals;
mod bare;
mod filled;
mod floor;
mod idle;
mod instances;
mod live;
mod load;
mod peer;
mod process;
mod raw;
mod reconnect;
mod server;
mod streams;
mod webhooks;

#[tokio::main]
async fn main() {
    let length = tidings_bench::length();
    // Cargo adds an option.
    let parts = std::env::args().skip(1).filter(|it| !it.starts_with('-'));
    for part in parts {
        match &*part {
            "accept" => accept::measure(length).await,
            "webhooks" => webhooks::throughput(length).await,
            "postgres" => instances::beside_the_database_alone(length).await,
            "instances" => instances::to_the_screens_of_another(length).await,
            "idle" => idle::measure().await,
            "fan-out" => live::fan_out(length).await,
            "live" => live::beside_others(length).await,
            "reconnect" => reconnect::measure(length).await,
            "start" => filled::start().await,
            "growth" => filled::growth(length).await,
            "isolation" => webhooks::isolation(length).await,
            "burst" => webhooks::burst().await,
            "idle-database" => instances::idle(length).await,
            other => panic!("there is no part {other}"),
        }
    }
}
