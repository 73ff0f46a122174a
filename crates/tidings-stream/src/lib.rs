//! Durable streams with consumer groups.
//!
//! A stream is a log of messages. A consumer works through it as a member of a *consumer group*: the
//! members of one group share its messages, and different groups get every message each. A group is
//! durable: it has a position in the stream, and a set of messages that it has
//! claimed and not finished.
//!
//! ```text
//!                          ┌ group "mail":  position 7, pending {5}    ◀── two members share it
//! publish ──▶ 1 2 3 4 5 6 7 8 9
//!                          └ group "index": position 9, pending {}     ◀── one member
//! ```
//!
//! # A message's way through a group
//!
//! | what happens | what follows |
//! |---|---|
//! | a handler is free | the message is **claimed** for the visibility timeout, and its attempt counted |
//! | the handler returns `Ok` | it is **acknowledged**: the group is done with it |
//! | the handler fails or panics | it comes again after a delay that the handler or the subscription chooses |
//! | the handler runs out of time | it is dropped, and the message is delivered again at once |
//! | the process dies | the message comes again: at the next start, or when its claim expires |
//! | all attempts are used up, or the handler gives up | it moves to the **dead-letter stream** `<stream>.dead`, with headers that say why |
//! | the consumer closes before a handler begins | it is released, with the attempt not counted |
//! | it is trimmed, or removed by hand, before a handler had it | the group skips it, and counts it as lost |
//!
//! Delivery is at least once: make the effects of handlers idempotent, and look at
//! [`Message::attempt`]. A handler whose effects are in the same database can also have them exactly once:
//! see [below](#in-a-transaction). New messages are claimed in the order in which they were published; more
//! than one handler, or a retry, breaks that order, except for [messages of one key](#in-order). Once another claim has
//! taken a message, the earlier one cannot acknowledge, retry or dead-letter it.
//!
//! ```
//! use std::sync::Arc;
//!
//! use tidings_stream::{
//!     HandlerError, MemoryEngine, Message, NewMessage, ServiceConfig, Streams, SubscribeOptions,
//! };
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tidings_stream::Error> {
//! let streams = Streams::new(Arc::new(MemoryEngine::new()), ServiceConfig::default());
//! let (done, mut results) = tokio::sync::mpsc::channel(16);
//! let consumer = streams
//!     .subscribe(
//!         "orders",
//!         "billing",
//!         SubscribeOptions::default().with_concurrency(8),
//!         move |order: Message| {
//!             let done = done.clone();
//!             async move {
//!                 if order.payload.is_empty() {
//!                     return Err(HandlerError::skip_retry("an order without content"));
//!                 }
//!                 done.send(order.id).await?; // any error means: try again later
//!                 Ok(())
//!             }
//!         },
//!     )
//!     .await?;
//!
//! let order = NewMessage::new("three apples").with_header("customer", "eve");
//! let id = streams.publish("orders", order).await?;
//! assert_eq!(results.recv().await, Some(id));
//!
//! let report = consumer.close().await;
//! assert_eq!(report.abandoned, 0);
//! # Ok(()) }
//! ```
//!
//! # Many at a time
//!
//! [`Streams::publish_batch`] appends many messages with one commit, and
//! [`Streams::subscribe_batch`] hands many to one call of a [`BatchHandler`], which may fail for some
//! of them. Neither waits for a batch to fill up. What many callers publish at the same time shares
//! a commit anyway.
//!
//! # One by one
//!
//! Where no handler fits, [`Streams::pull`] gives the messages as a `Stream`. It claims no more than is asked
//! for, and each [`PulledMessage`] is acknowledged, tried again later, rejected, or kept for longer, by hand.
//!
//! ```
//! # use std::{sync::Arc, time::Duration};
//! # use tidings_stream::{MemoryEngine, NewMessage, ServiceConfig, StartFrom, Streams, SubscribeOptions};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), tidings_stream::Error> {
//! # let streams = Streams::new(Arc::new(MemoryEngine::new()), ServiceConfig::default());
//! # streams.publish("orders", NewMessage::new("three apples")).await?;
//! let options = SubscribeOptions::default().with_start(StartFrom::Earliest);
//! let mut orders = streams.pull("orders", "billing", options).await?;
//! while let Some(order) = orders.next().await {
//!     if order.message.payload == "three apples" {
//!         order.acknowledge()?;
//!         break;
//!     }
//!     order.retry_after(Duration::from_secs(60), "out of stock")?;
//! }
//! # orders.consumer().close().await;
//! # Ok(()) }
//! ```
//!
//! # In order
//!
//! Messages with the same [ordering key](NewMessage::with_ordering_key) are handled one at a time and in their
//! order by groups that [keep it](SubscribeOptions::with_key_order), however many consumers and handlers
//! they have. [`with_max_in_flight`](SubscribeOptions::with_max_in_flight) bounds what a whole group works on.
//!
//! # In a transaction
//!
//! On SQLite and PostgreSQL, `publish_in` publishes inside a transaction of the caller's own, and `settle_in`
//! acknowledges a message inside one of its handler's. What the handler writes there, what it publishes and
//! the acknowledgement exist together or not at all, whatever is killed. The example `payments` does so.
//! If the transaction is rolled back, or never committed, the message is delivered again. If it is
//! committed, the message is settled, whatever the handler returns then.
//!
//! # Repeats
//!
//! A publisher that gets [`Error::OutcomeUnknown`] does not know whether its message was appended. With
//! a [publish key](NewMessage::with_publish_key) it tries again: the second publish returns the id of
//! the first.
//!
//! # Ending
//!
//! [`Consumer::close`] waits for the handlers that run. A handler that takes a [`Context`]
//! ([`with_context`]) sees that closing has begun, and can save what it has done so far.
//! [`Consumer::ended`] says when and why a consumer ended, also one that could not continue because its
//! group is gone.
//!
//! # Watching
//!
//! Metrics go to the recorder of the `metrics` crate, and each handler call runs in a span of `tracing`:
//! see [`telemetry`]. [`GroupStats`] has the lag of a group in messages and in time.
//!
//! # By hand
//!
//! | to | call |
//! |---|---|
//! | see what there is | [`list`](Streams::list), [`stats`](Streams::stats), [`read`](Streams::read) |
//! | see who works on what, since when | [`members`](Streams::members), [`pending`](Streams::pending) |
//! | replay, or skip | [`seek`](Streams::seek) to an id, a time or an end |
//! | hold a consumer | [`pause`](Consumer::pause), [`resume`](Consumer::resume) |
//! | bring dead letters back, all or by a filter, slowly if you like | [`redrive`](Streams::redrive) |
//! | clean up | [`trim`](Streams::trim), [`delete_message`](Streams::delete_message), [`delete_group`](Streams::delete_group), [`delete_stream`](Streams::delete_stream) |
//!
//! # Engines
//!
//! Where the messages are kept is the business of an [`Engine`](engine::Engine); everything above
//! is decided once, over it. [`MemoryEngine`] forgets with the process. `sqlite::SqliteEngine`
//! (feature `sqlite`) keeps them in a file, shares its transactions with whatever else lives there,
//! and needs no server. `postgres::PostgresEngine` (feature `postgres`) keeps them in a PostgreSQL
//! database that many processes share, `redis::RedisEngine` (feature `redis`) on a Redis server. The
//! feature `conformance` has the tests for an engine of your own.
//!
//! # What it is not
//!
//! It is no job scheduler: a message has no priority and no due date of its own. It is no broker:
//! there is no network protocol, processes meet in the engine. It does not deliver exactly once, except
//! into the transactions of handlers.

#![doc(test(attr(deny(unused_imports))))]

mod config;
#[cfg(feature = "conformance")]
pub mod conformance;
mod consumer;
pub mod dead_letter;
pub mod engine;
mod error;
mod message;
mod name;
mod stats;
mod streams;
pub mod telemetry;

pub use config::{Retention, RetryDelay, ServiceConfig, StartFrom, SubscribeOptions};
pub use consumer::batch_handler::{BatchError, BatchHandler, batch_with_context};
pub use consumer::handler::{Context, Handler, HandlerError, WithContext, with_context};
pub use consumer::pull::{PulledMessage, PulledMessages};
pub use consumer::{CloseReport, Consumer, ConsumerStats, EndReason, Ended};
#[cfg(feature = "import")]
pub use engine::import;
pub use engine::memory::MemoryEngine;
#[cfg(feature = "postgres")]
pub use engine::postgres;
#[cfg(feature = "redis")]
pub use engine::redis;
#[cfg(feature = "sqlite")]
pub use engine::sqlite;
pub use error::{Error, Result};
pub use message::{
    Headers, InvalidMessageId, MAX_BATCH_BYTES, MAX_HEADER_BYTES, MAX_ORDERING_KEY_BYTES,
    MAX_PAYLOAD_BYTES, MAX_PUBLISH_KEY_BYTES, MAX_PUBLISH_KEY_WINDOW, Message, MessageId,
    NewMessage, ORDERING_KEY, PublishKey,
};
pub use name::{GroupName, InvalidName, MAX_NAME_BYTES, StreamName};
pub use stats::{GroupFigures, GroupStats, Member, PendingMessage, StreamStats};
pub use streams::{Redrive, Redriven, Streams};
pub use tidings_reconnect::Cause;

/// The example of the README runs.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
