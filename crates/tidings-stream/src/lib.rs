//! Durable streams with consumer groups.

mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod consumer;
pub mod dead_letter;
pub mod engine;
mod error;
mod handler;
mod janitor;
mod memory;
mod message;
mod name;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod stats;
mod streams;
mod wake;

pub use config::{Retention, RetryDelay, ServiceConfig, StartFrom, SubscribeOptions};
pub use consumer::{CloseReport, Consumer, ConsumerStats};
pub use error::Error;
pub use handler::{Handler, HandlerError};
pub use memory::MemoryEngine;
pub use message::{
    Headers, InvalidMessageId, MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES, Message, MessageId, NewMessage,
};
pub use name::{GroupName, InvalidName, MAX_NAME_BYTES, StreamName};
pub use stats::{GroupStats, StreamStats};
pub use streams::Streams;
