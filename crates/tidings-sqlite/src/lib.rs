//! One SQLite file shared by several stores.
//!
//! **Internal to Tidings: no semver promise.** Use `tidings-notify`, `tidings-stream` and their siblings;
//! this crate is published because they depend on it, and because a program that publishes in a
//! transaction of its own opens its file with it.
//!
//! SQLite lets one connection write at a time, and a durable commit costs an fsync. A store that
//! opens its own connection pays that fsync for every call and collides with every other store on
//! the file. A [`Database`] gives all of them one writer: a thread that takes whatever calls are
//! waiting, runs them in one transaction, commits once, and only then returns to each caller.
//!
//! ```text
//! write(job) ──▶ bounded queue ──▶ writer thread: BEGIN · job · job · job · COMMIT ──▶ results
//! read(job)  ──▶ bounded queue ──▶ reader threads, each with a read-only connection
//! ```
//!
//! - A job that fails is rolled back alone; its neighbours commit.
//! - `Ok` from [`Database::write`] means that the commit is on disk.
//! - Two stores take part in one transaction by running in one job: their functions take the
//!   [`rusqlite::Transaction`] that the job is given.
//!
//! It is not a connection pool and not an abstraction over SQL: jobs speak [`rusqlite`].
//!
//! ```
//! # async fn example() -> Result<(), tidings_sqlite::Error> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let path = folder.path().join("example.db");
//! use tidings_sqlite::{Database, Options};
//!
//! let database = Database::open(path, &Options::default())?;
//! database.migrate("counter", &["CREATE TABLE counter (n INTEGER NOT NULL)"]).await?;
//! database.write(|tx| tx.execute("INSERT INTO counter VALUES (1)", [])
//!     .map_err(tidings_sqlite::Error::from)).await?;
//! let n: i64 = database.read(|connection| {
//!     Ok::<_, tidings_sqlite::Error>(connection.query_row("SELECT sum(n) FROM counter", [], |row| row.get(0))?)
//! }).await?;
//! assert_eq!(n, 1);
//! database.close().await;
//! # Ok(()) }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(example()).unwrap();
//! ```

#![doc(test(attr(deny(unused_imports))))]

mod application;
mod connection;
mod database;
mod error;
mod fault;
mod file;
mod handle;
mod liveness;
mod log;
mod migration;
mod progress;
mod reader;
mod room;
mod slot;
mod writer;

pub use database::{Database, Options};
pub use error::Error;
pub use fault::Fault;
pub use file::{check_file, real_path};
pub use handle::Handle;
pub use liveness::Liveness;
pub use rusqlite;
pub use tidings_reconnect::Cause;

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
