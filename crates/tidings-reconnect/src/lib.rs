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
//! | [`Timing`] | how long to wait for a reply, and how often to check a silent connection |
//!
//! It does not know what the connection is to.

mod backoff;
mod cause;
mod obstacle;
mod reconnect;
mod slot;
mod timing;
mod trouble;

pub use backoff::Backoff;
pub use cause::Cause;
pub use obstacle::Obstacle;
pub use reconnect::Reconnect;
pub use slot::{Breakable, Slot};
pub use timing::Timing;
pub use trouble::Trouble;
