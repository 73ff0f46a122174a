//! The server as its users meet it: the real binary, real sockets, real kills.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod api_keys;
mod arguments;
mod bench;
mod bins;
mod browser;
mod command_line;
mod connections;
mod crash;
mod disk;
mod doctor;
mod durability;
mod encryption;
mod endpoint_commands;
mod endpoints;
mod errors;
#[cfg(target_os = "linux")]
mod full_output;
mod inbox;
mod limits;
mod load;
mod lost_replies;
mod metrics;
mod names;
mod pings;
mod postgres_balanced;
mod postgres_import;
mod postgres_instances;
mod postgres_outages;
mod presence;
mod rates;
mod raw;
mod receipts;
mod reload;
mod request_id;
mod restored;
mod retention;
mod shutdown;
mod slow;
mod slow_readers;
mod sse;
mod start;
mod storage;
mod support;
mod tail;
mod tokens;
#[cfg(feature = "otlp")]
mod traces;
mod unversioned;
mod webhooks;
mod websocket;
