//! One Redis server for several stores: a connection that comes back, and messages that come unasked.
//!
//! Every store that speaks to Redis, or to Valkey, has the same questions: where the server is and
//! how long to wait for it, what to do when the connection breaks, and whether a command that failed
//! may have been done all the same. Here they are answered once.
//!
//! ```text
//! Config ──┬──▶ Server ─────────▶ one connection that all share: commands are pipelined
//!          └──▶ connect(push) ──▶ one of the caller's own, for commands that block, and for what
//!                                 the server sends unasked (RESP3)
//! ```
//!
//! | error | means |
//! |---|---|
//! | [`Error::Refused`] | the server said no; the connection is as good as before |
//! | [`Error::Unsent`] | there is no connection, and nothing was done |
//! | [`Error::Unanswered`] | the connection broke or stayed silent: it may have been done |
//!
//! It is not a connection pool and not an abstraction over commands: they speak [`redis`].
//!
//! ```no_run
//! use tidings_redis::{Config, Server, redis::cmd};
//!
//! # async fn example() -> Result<(), tidings_redis::Error> {
//! let server = Server::new(Config::new("redis://127.0.0.1/")?);
//! let n: u64 = server
//!     .run(|mut connection| async move { cmd("INCR").arg("n").query_async(&mut connection).await })
//!     .await?;
//! # Ok(()) }
//! ```

mod config;
mod connection;
mod error;
mod server;

pub use config::Config;
pub use connection::Connection;
pub use error::Error;
pub use redis;
pub use server::Server;
