//! The Tidings server: accepts notifications over HTTP, stores them in one SQLite file or in a
//! PostgreSQL database that several servers share, and delivers them to open streams, the inbox and webhooks.
//!
//! This package is a binary first; the library exists so that tests and other programs can run a
//! [`Server`] in their own process.
//!
//! ```text
//! POST /v1/notifications ─▶ storage.accept: one transaction ─┬─ the user's log and inbox counters
//!                                                            ├─ one message for the fan-out
//!                                                            └─ the idempotency key
//!                            after the commit ───────────────┬─ streams read on
//!                                                            └─ fan-out makes deliveries, lanes send
//! ```

#![doc(test(attr(deny(unused_imports))))]

mod accept;
pub mod access;
mod app;
mod bins;
pub mod commands;
pub mod config;
mod connections;
mod error;
mod farewell;
mod header_list;
mod health;
mod http;
mod limits;
mod openings;
mod outage;
mod panics;
mod permits;
mod resealing;
mod retention;
mod same_redis;
mod server;
pub mod settings;
mod small_file;
mod telemetry;
mod wire;

pub use config::Config;
pub use error::StartError;
pub use server::{Leftovers, Server};
pub use settings::Settings;
pub use tidings_storage::explain::explain;

/// Where a server keeps what it accepts.
pub mod storage {
    pub use tidings_storage::{
        DatabaseUrl, InvalidDatabaseUrl, InvalidRedisUrl, PostgresUrl, RedisUrl, StorageError,
    };
}
