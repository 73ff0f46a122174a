//! What streams promise, on every engine.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![cfg(all(
    feature = "import",
    feature = "sqlite",
    feature = "postgres",
    feature = "redis",
    feature = "conformance"
))]

mod checker;
mod children;
mod claims;
mod conformance;
mod consumer;
mod database;
mod effects;
mod faults;
mod idle;
mod kill;
mod outage_log;
mod payments;
mod place;
mod postgres;
mod postgres_cost;
mod postgres_faults;
mod postgres_holes;
mod postgres_import;
mod postgres_locks;
mod redis;
mod redis_cost;
mod redis_faults;
mod redrive;
mod redrive_processes;
mod send_sync;
mod settle_in;
mod sizes;
mod sqlite;
mod sqlite_faults;
mod wrapped;
