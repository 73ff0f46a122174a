//! One PostgreSQL database for several stores: a connection that comes back, listening, migrations.
//!
//! Every store that speaks to PostgreSQL has the same questions: where the server is and how long to
//! wait for it, what to do when the connection breaks, whether a statement that failed may have been
//! done all the same, and how its tables come to be. Here they are answered once.
//!
//! ```text
//!          ┌──▶ Database ──▶ one connection that all share: statements are pipelined
//! Config ──┤                    └──▶ migrate(component, steps): one of its own, while it lasts
//!          ├──▶ connect() ────▶ one of the caller's own, for transactions
//!          └──▶ listen() ─────▶ Listening: notifications, and the statements that ask for them
//! ```
//!
//! | error | means |
//! |---|---|
//! | [`Error::Refused`] | the server said no and undid it; the connection is as good as before |
//! | [`Error::Unsent`] | there is no connection, and nothing was done |
//! | [`Error::Unanswered`] | the connection broke or stayed silent: it may have been done |
//!
//! It is not a connection pool and not an abstraction over SQL: statements speak [`tokio_postgres`].
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

mod client;
mod config;
mod database;
mod error;
mod listening;
mod migration;
mod tls;

pub use client::Client;
pub use config::Config;
pub use database::Database;
pub use error::Error;
pub use listening::Listening;
pub use tokio_postgres;
