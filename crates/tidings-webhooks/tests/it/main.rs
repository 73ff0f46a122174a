//! What webhooks promise, on every store.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints what it does for its parent"
)]

mod circuits;
mod delivery;
mod durability;
mod encryption;
mod fan_out;
mod faults;
mod handed;
mod kill;
mod lanes;
mod postgres;
mod postgres_conformance;
mod sqlite_conformance;
mod support;
mod telemetry;
mod watched;
