//! The client and the sender against real sockets, through their public interface.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod client;
mod dispatcher;
mod hostile;
#[cfg(any(feature = "rustls", feature = "native-tls"))]
mod http2;
mod metrics;
mod router;
mod send_sync;
mod sender;
mod support;
mod transport;
