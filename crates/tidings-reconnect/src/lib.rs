//! A connection that is made when it is needed, and made again when it broke.
//!
//! **Internal to Tidings: no semver promise.** Use `tidings-stream`, `tidings-pubsub` and their
//! siblings; this crate is published because they depend on it.
//!
//! | part | is for |
//! |---|---|
//! | [`Slot`] | one connection that many callers share; one attempt to connect serves all who wait |
//! | [`Reconnect`] | a loop that must have a connection: when to try again, and what to log |
//! | [`Trouble`] | which failures of a loop to log |
//! | [`Backoff`] | the pauses between attempts |
//! | [`Cause`] | the error behind another one, which can be downcast |
//! | [`Obstacle`] | what keeps a program from its server, in plain words |
//! | [`is_this_machine`] | whether a host of a URL is this machine for sure |
//! | [`Timing`] | how long to wait for a reply, and how often to check a silent connection |
//!
//! It does not know what the connection is to.

#![doc(test(attr(deny(unused_imports))))]

mod backoff;
mod cause;
mod obstacle;
mod reconnect;
mod slot;
mod this_machine;
mod timing;
mod trouble;

pub use backoff::Backoff;
pub use cause::Cause;
pub use obstacle::Obstacle;
pub use reconnect::Reconnect;
pub use slot::{Breakable, Slot};
pub use this_machine::is_this_machine;
pub use timing::Timing;
pub use trouble::Trouble;
