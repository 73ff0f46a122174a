//! One Redis server for several stores: one connection, and messages that are not replies.
//!
//! **Internal to Tidings: no semver promise.** Use `tidings-stream`, `tidings-pubsub` and their
//! siblings; this crate is published because they depend on it.
//!
//! Every store on Redis, or on Valkey, has the same questions: where the server is and how long to wait
//! for it, what to do when the connection breaks or its server becomes a replica, and whether a command
//! that failed may have been done after all. This crate is the one place that decides this.
//!
//! ```text
//! Config ──┬──▶ Server ─────────▶ one shared connection: commands are pipelined
//!          │      └──▶ Scripts ─▶ what each component keeps on the server, loaded when it is missing
//!          └──▶ connect(push) ──▶ one of the caller's own, for commands that block, and for messages
//!                                 that are not replies (RESP3)
//! ```
//!
//! | error | means |
//! |---|---|
//! | [`Error::Refused`] | the server refused the command; the connection stays usable |
//! | [`Error::Unsent`] | there is no connection, and nothing was done |
//! | [`Error::NotPrimary`] | there is only a replica, and nothing was done |
//! | [`Error::NoReply`] | the connection broke or fell silent: the command may have been done |
//! | [`Error::Unexpected`] | the command was done, and its reply is not understood |
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

#![doc(test(attr(deny(unused_imports))))]

mod config;
mod connection;
mod error;
mod keep_listening;
mod reason;
mod scripts;
mod server;
mod url;

pub use config::Config;
pub use connection::Connection;
pub use error::Error;
pub use keep_listening::Heard;
pub use redis;
pub use scripts::{HASH_TAG, Script, Scripts, hash_tag};
pub use server::Server;
pub use tidings_reconnect::Cause;

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
