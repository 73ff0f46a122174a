//! What is on disk, and what becomes of a disk that is full.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(
    clippy::print_stdout,
    reason = "a child prints for its test what it has done"
)]

mod disk;
