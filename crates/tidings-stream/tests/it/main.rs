//! What streams promise, on every engine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(all(feature = "sqlite", feature = "conformance"))]

mod conformance;
mod idle;
mod send_sync;
mod sqlite;
