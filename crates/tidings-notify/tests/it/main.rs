//! What the notifier, its streams, stores and presence promise, through their public functions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod clock;
mod closing;
mod database;
mod delivered;
mod devices;
mod durability;
mod events;
mod every_store;
mod histories;
mod inbox;
mod inbox_histories;
mod instances;
mod killed_histories;
mod marks;
mod postgres;
mod postgres_creation;
mod postgres_faults;
mod postgres_roles;
mod postgres_wakes;
mod presence;
mod pushing;
mod redis;
mod redis_failover;
mod redis_faults;
mod redis_wakes;
mod resuming;
mod runtimes;
mod send_sync;
mod stores;
mod streams;
mod stress;
mod support;
mod wakes;
mod wire;
