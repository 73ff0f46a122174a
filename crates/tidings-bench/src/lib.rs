//! What the benchmarks of Tidings share: the shape of a figure, and the list of all benchmarks.
//!
//! `scripts/bench` runs every [`Benchmark`] of [`BENCHMARKS`]. A benchmark is a program that measures something
//! and its baseline in the same run, and [emits](Row::emit) a [`Row`] for each pair. Alone, by `cargo bench`, a
//! program prints its rows; `scripts/bench` collects them through the file in [`ROWS`].
//!
//! | environment variable | holds |
//! |---|---|
//! | `TIDINGS_BENCH_ROWS` | the file to which rows are appended, as one JSON object a line |
//! | `TIDINGS_BENCH_SECONDS` | for how long one figure is measured, 1 to 600; otherwise 6 |
//! | `TIDINGS_BENCH_SERVER` | the absolute path of the program `tidings` to measure; otherwise the one that cargo has built with the benchmark |
//! | `TIDINGS_BENCH_PEER` | the program `durable-streams-server`, beside which the server is measured |

#![doc(test(attr(deny(unused_imports))))]

mod catalogue;
pub mod criterion;
mod latencies;
mod row;

use std::time::Duration;

pub use catalogue::{BENCHMARKS, Benchmark};
pub use latencies::Latencies;
pub use row::{Baseline, Better, Figure, Rate, Row, Target};

/// The environment variable with the file of rows.
pub const ROWS: &str = "TIDINGS_BENCH_ROWS";

/// The environment variable with the time for a figure.
pub const SECONDS: &str = "TIDINGS_BENCH_SECONDS";

/// The environment variable with the server to measure.
pub const SERVER: &str = "TIDINGS_BENCH_SERVER";

/// The environment variable with the program to compare the server with.
pub const PEER: &str = "TIDINGS_BENCH_PEER";

/// For how long one figure is measured.
///
/// # Panics
///
/// If [`SECONDS`] is not a number from 1 to 600.
pub fn length() -> Duration {
    let seconds = std::env::var(SECONDS).map_or(6, |text| match text.parse() {
        Ok(seconds @ 1..=600) => seconds,
        _ => panic!("{SECONDS} is {text}: expected a number of seconds from 1 to 600"),
    });
    Duration::from_secs(seconds)
}

/// Whether the run is a short one, in which large amounts are made smaller: less than three seconds a figure.
pub fn is_quick() -> bool {
    length() < Duration::from_secs(3)
}

/// `count` as a number to divide: exact up to 2^53.
#[allow(clippy::cast_precision_loss, reason = "no benchmark counts so far")]
pub fn number(count: usize) -> f64 {
    count as f64
}
