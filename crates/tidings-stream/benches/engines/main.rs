//! `scripts/services cargo bench -p tidings-stream --all-features`: what streams add to their
//! engines. Names as arguments choose engines, of `publish`, `consume` and `history` what is measured,
//! and lines of it by callers and batch: `… --bench engines -- sqlite consume 1x100`.
//!
//! Each figure stands beside that of the engine alone, doing the least that the same promise takes,
//! in the same round. The ratio is the median of the rounds, and 1.00 means that streams cost
//! nothing. Publishing waits for the commit on both sides. Consuming claims, handles and
//! acknowledges what lies ready, all through a subscription with a handler for batches.

#![allow(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::future_not_send,
    reason = "a benchmark fails by panicking, and prints its figures"
)]

mod memory;
mod postgres;

mod raw;
mod redis;

mod rounds;
mod sqlite;
mod streams;

use raw::Raw;
use rounds::Pair;
use std::sync::Arc;
use tidings_bench::{Row, is_quick};
use tidings_stream::engine::Engine;

/// How many publishers there are, and how many messages each sends at a time. The engine alone has as
/// many.
const PUBLISHING: [(usize, usize); 6] = [(1, 1), (64, 1), (1, 16), (1, 100), (1, 1000), (64, 100)];
/// How many handlers there are, and how many messages each gets at a time. The engine alone claims as
/// many at a time, by one caller.
const CONSUMING: [(usize, usize); 6] = [(1, 1), (64, 1), (1, 16), (1, 100), (4, 100), (1, 1000)];

/// What can be measured alone.
const PARTS: [&str; 3] = ["publish", "consume", "history"];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| !argument.starts_with('-'))
        .collect();
    let (lines, wanted): (Vec<_>, Vec<_>) = wanted
        .into_iter()
        .partition(|name| name.starts_with(|first: char| first.is_ascii_digit()));
    let (parts, engines): (Vec<_>, Vec<_>) = wanted
        .into_iter()
        .partition(|name| PARTS.contains(&&**name));
    let choice = Choice { parts, lines };
    let is_wanted = |name: &str| engines.is_empty() || engines.iter().any(|other| other == name);
    if is_wanted("memory") {
        let (engine, raw) = memory::engines();
        compare("memory", engine, &raw, &choice).await;
    }
    if is_wanted("sqlite") {
        let folder = tempfile::tempdir().unwrap();
        let (engine, raw) = sqlite::engines(folder.path()).await;
        compare("SQLite", engine, &raw, &choice).await;
    }
    if is_wanted("postgres") {
        let (engine, raw) = postgres::engines().await;
        compare("PostgreSQL", engine, &raw, &choice).await;
    }
    if is_wanted("redis") {
        let (engine, raw) = redis::engines().await;
        compare("Redis", engine, &raw, &choice).await;
    }
}

/// What is measured of an engine; everything of which nothing is named.
struct Choice {
    parts: Vec<String>,
    lines: Vec<String>,
}

impl Choice {
    fn has(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|it| it == part)
    }

    fn has_line(&self, callers: usize, batch: usize) -> bool {
        self.lines.is_empty() || self.lines.contains(&format!("{callers}x{batch}"))
    }
}

async fn compare(name: &str, engine: Arc<dyn Engine>, raw: &impl Raw, choice: &Choice) {
    let ours = streams::Ours::new(engine).await;
    if choice.has("publish") {
        for (publishers, batch) in PUBLISHING {
            if !choice.has_line(publishers, batch) {
                continue;
            }
            let pair = rounds::publishing(raw, &ours, publishers, batch).await;
            emit(&format!("{name}, publish, {publishers} × {batch}"), &pair);
        }
        if choice.lines.is_empty()
            && let Some(alone) = rounds::one_per_transaction(raw).await
        {
            let ours = rounds::publishing(raw, &ours, 1, 100).await;
            Row::rate(&format!("{name}, publish by 100"), UNIT, ours.streams)
                .beside("the engine alone, one per transaction", alone)
                .emit();
        }
    }
    if choice.has("consume") {
        for (handlers, batch) in CONSUMING {
            if !choice.has_line(handlers, batch) {
                continue;
            }
            let pair = rounds::consuming(raw, &ours, handlers, batch).await;
            emit(&format!("{name}, consume, {handlers} × {batch}"), &pair);
        }
    }
    if choice.has("history") && choice.lines.is_empty() {
        // Messages behind, to show that history costs nothing.
        let history = if is_quick() { 100_000 } else { 1_000_000 };
        let empty = (ours.publishing().await, ours.consuming().await);
        ours.fill(history).await;
        let full = (ours.publishing().await, ours.consuming().await);
        for (what, before, after) in [("publish", empty.0, full.0), ("consume", empty.1, full.1)] {
            let what = format!("{name}, {what} by 100, {history} messages behind");
            Row::rate(&what, UNIT, after)
                .beside("none behind", before)
                .emit();
        }
    }
}

const UNIT: &str = "messages/s";

fn emit(what: &str, pair: &Pair) {
    Row::rate(what, UNIT, pair.streams)
        .beside("the engine alone", pair.alone)
        .emit();
}
