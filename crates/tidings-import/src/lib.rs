//! Moving the tables of a SQLite file to a PostgreSQL database.
//!
//! **Internal to Tidings: no semver promise.** Use the command `tidings import`; this crate is published
//! because the command depends on it.
//!
//! A component that keeps its data on both engines describes its tables as a [`Part`]: where each row
//! goes, and how to see that a database is empty or in use. [`Source`] is the file, [`lock`] refuses a database that
//! takes no import, [`Locked::copy`] copies all parts, and [`Copied::finish`] ends the import.
//!
//! # An import is whole or refused
//!
//! Rows are copied in transactions of bounded size, so others can see a part of them. The table
//! `tidings_import` marks such a database: it is made before the first row, and dropped in the transaction that
//! ends the import. A program that uses the database refuses a marked one, and keeps imports out while it starts:
//! [`Starting`]. The next import into a
//! marked database must be of the same file; it removes what the last one has left, and begins anew. If the reply to the
//! last commit is lost, the database is asked what became of it.

#![doc(test(attr(deny(unused_imports))))]

mod database;
mod error;
mod part;
mod rows;
mod source;
mod starting;
mod target;

pub use error::Error;
pub use part::{Lease, Part, Sequence, Table};
pub use source::Source;
pub use starting::Starting;
pub use target::{Copied, Locked, Progress, is_unfinished, lock};

/// The README.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
