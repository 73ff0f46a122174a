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
mod counted;
mod error;
mod farewell;
mod finding;
mod header_list;
mod health;
mod http;
mod idempotency;
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
pub mod storage;
mod telemetry;
mod wire;

pub use config::Config;
pub use error::{StartError, explain};
pub use server::{Leftovers, Server};
pub use settings::Settings;
