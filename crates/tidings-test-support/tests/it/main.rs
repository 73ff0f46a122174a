//! What the receiver does, seen from the other end of its sockets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod hostility;
#[cfg(target_os = "linux")]
mod outage;
mod receiver;
mod replies;
mod tls;
