//! What the notifier and its stores promise, through their public functions.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod stores;
mod streams;
mod support;
