//! A connection that is made when it is needed, and made again when it broke.
//!
//! [`Slot`] holds the one connection that many share, and sees to it that one attempt serves all who
//! wait for it. [`Backoff`] is for whoever has to have a connection, and tries until there is one.
//! Neither knows what the connection is to.

mod backoff;
mod slot;

pub use backoff::Backoff;
pub use slot::{Connection, Slot};
