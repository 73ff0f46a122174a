//! One PostgreSQL database for several stores: one connection, listening, migrations.
//!
//! **Internal to Tidings: no semver promise.** Use `tidings-stream`, `tidings-pubsub` and their
//! siblings; this crate is published because they depend on it.
//!
//! Every store on PostgreSQL has the same questions: where the server is and how long to wait for it,
//! what to do when the connection breaks, whether a statement that failed may have been done after all,
//! and how its tables are created. This crate is the one place that decides this.
//!
//! ```text
//!          ┌──▶ Database ──▶ one shared connection: statements are pipelined
//! Config ──┤                    ├──▶ migrate(component, steps): one of its own, while it lasts
//!          │                    └──▶ Connections: several, each for one statement at a time
//!          ├──▶ connect() ────▶ one of the caller's own, for transactions
//!          └──▶ listen() ─────▶ Listening: notifications, and the statements that ask for them
//! ```
//!
//! | error | means |
//! |---|---|
//! | [`Error::Refused`] | the server refused the statement and undid it; the connection stays usable |
//! | [`Error::Unsent`] | there is no connection, or none is free, and nothing was done |
//! | [`Error::Closed`] | the connections were closed, and nothing was done |
//! | [`Error::NoReply`] | the connection broke or fell silent: the statement may have been done |
//!
//! It is not an abstraction over SQL: statements speak [`tokio_postgres`].
//!
//! ```no_run
//! use tidings_postgres::{Config, Database};
//!
//! # async fn example() -> Result<(), tidings_postgres::Error> {
//! let database = Database::new(Config::new("postgres://tidings@127.0.0.1/tidings")?);
//! database.migrate("counter", &["CREATE TABLE counter (n bigint NOT NULL)"]).await?;
//! let rows = database
//!     .run(|client| async move { client.query_typed("SELECT sum(n) FROM counter", &[]).await })
//!     .await?;
//! # Ok(()) }
//! ```

#![doc(test(attr(deny(unused_imports))))]

mod cancel;
mod certificates;
mod channel_binding;
mod client;
mod config;
mod connections;
mod database;
mod error;
mod hosts;
mod keep_listening;
mod listening;
mod migration;
mod parameter;
mod reason;
mod tls;
mod url;

pub use client::{Client, Committing};
pub use config::Config;
pub use connections::{Connections, Sessions};
pub use database::Database;
pub use error::Error;
pub use keep_listening::Heard;
pub use listening::Listening;
pub use parameter::{Parameter, Typed};
pub use tidings_reconnect::Cause;
pub use tokio_postgres;

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
