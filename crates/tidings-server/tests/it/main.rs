//! The server as its users meet it: the real binary, real sockets, real kills.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod browser;
mod command_line;
mod crash;
mod errors;
mod inbox;
mod limits;
mod shutdown;
mod sse;
mod support;
mod unversioned;
mod webhooks;
mod websocket;
