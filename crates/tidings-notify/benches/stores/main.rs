//! `scripts/services cargo bench -p tidings-notify --all-features`: what a notifier adds to its engine.
//! Names of engines and of figures after `--` choose some of them: `memory`, `sqlite`, `postgres`, `redis`;
//! `append`, `latency`, `others`, `many`, `memory-per-stream`, `million`.
//!
//! Throughput stands beside that of the engine alone, as one would use it by hand, taken in the same round
//! against the same server; the ratio is the median of the rounds, and more is better.

#![allow(
    clippy::unwrap_used,
    clippy::future_not_send,
    reason = "a benchmark fails by panicking, and prints its results"
)]

mod figures;
mod memory;
mod million;
mod postgres;
mod raw;
mod redis;
mod sqlite;

use std::sync::Arc;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tidings_notify::Store;

use crate::raw::Raw;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

/// Which engines and figures were asked for.
struct Chosen(Vec<String>);

impl Chosen {
    const ENGINES: [&str; 4] = ["memory", "sqlite", "postgres", "redis"];

    fn has(&self, name: &str) -> bool {
        let is_engine = |name: &str| Self::ENGINES.contains(&name);
        let mut alike = self.0.iter().filter(|it| is_engine(it) == is_engine(name));
        alike.clone().next().is_none() || alike.any(|it| it == name)
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments = std::env::args().skip(1);
    let chosen = Chosen(arguments.filter(|it| !it.starts_with('-')).collect());
    let folder = tempfile::tempdir_in(".").unwrap();
    if chosen.has("memory") {
        let (store, alone) = memory::engines();
        measure("memory", store, &alone, &chosen, 2000).await;
    }
    if chosen.has("sqlite") {
        let (store, alone) = sqlite::engines(folder.path()).await;
        measure("SQLite", store.clone(), &alone, &chosen, 40).await;
        if chosen.has("million") {
            million::measure(store).await;
        }
    }
    if chosen.has("postgres") {
        let (store, alone) = postgres::engines().await;
        measure("PostgreSQL", store, &alone, &chosen, 40).await;
    }
    if chosen.has("redis") {
        let (store, alone) = redis::engines().await;
        measure("Redis", store, &alone, &chosen, 40).await;
    }
}

async fn measure(
    name: &str,
    store: Arc<dyn Store>,
    alone: &impl Raw,
    chosen: &Chosen,
    batches: usize,
) {
    if chosen.has("append") {
        figures::append(name, &store, alone, batches).await;
    }
    if chosen.has("latency") {
        figures::latency(name, &store).await;
    }
    if chosen.has("others") {
        figures::others(name, &store).await;
    }
    if chosen.has("many") {
        figures::many(name, &store, alone).await;
    }
    if chosen.has("memory-per-stream") {
        figures::memory_per_stream(name, &store).await;
    }
}
