//! What stores rely on, against the server that `scripts/services` starts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod redis;
mod scripts;
mod texts;
