//! Topics: fire-and-forget fan-out to current subscribers.
//!
//! The part of a system in which something happens should not have to know the parts that react to
//! it. A [`Publisher`] sends a payload to a [`Topic`], and every [`Subscription`] that has the topic
//! at that moment gets a copy. Without subscribers the message is dropped: this is a transport without
//! memory. Filters, types and retries belong to the code that uses it.
//!
//! ```text
//!                             ┌──▶ mailbox ──▶ Subscription   (a stream)
//! publish(topic, payload) ──▶ ├──▶ mailbox ──▶ Subscription
//!                             └──▶ mailbox ──▶ Listener       (a handler with a task of its own)
//! ```
//!
//! Each subscription has a bounded mailbox. A slow one fills its own and delays no other; what
//! happens when it is full is its own choice:
//!
//! | [`Overflow`] | a message that finds the mailbox full | the subscriber learns |
//! |---|---|---|
//! | `DropOldest` (default) | takes the place of the oldest one | [`Lagged`], before what is left |
//! | `DropNewest` | is dropped | [`Lagged`], after what was there |
//! | `Wait(limit)` | makes its publisher wait for room, then is dropped | [`Lagged`], after what was there |
//!
//! The [`Topics`] of a subscription can change while it lives. A [`Pattern`] stands for all topics
//! whose names match, if the broker supports patterns. A message that several of them match is
//! delivered once.
//!
//! A loss is never silent: [`Lagged`] stands in the stream where messages are missing, with their
//! exact number if the broker knows it. Metrics count losses as well: [`telemetry`] has their names.
//!
//! ```
//! use tidings_pubsub::{MemoryBroker, Namespace, Received, SubscribeOptions, Subscriber};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = MemoryBroker::new();
//! let orders = Namespace::default().topic("orders")?; // app.default.orders
//!
//! let mut subscription = broker.subscribe(vec![orders.clone()], SubscribeOptions::default()).await?;
//! broker.publish(&orders, "order 7 was paid".into()).await?;
//!
//! match subscription.recv().await {
//!     Some(Received::Message(message)) => assert_eq!(message.payload(), "order 7 was paid"),
//!     Some(Received::Lagged(lagged)) => eprintln!("{lagged}"),
//!     None => eprintln!("the broker was closed"),
//! }
//! # Ok(()) }
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(example()).unwrap();
//! ```
//!
//! Code that takes an `Arc<dyn Broker>` runs on any [`Broker`]:
//!
//! | broker | feature | reaches | patterns | a connection that breaks |
//! |---|---|---|---|---|
//! | [`MemoryBroker`] | | one process | yes | |
#![cfg_attr(
    feature = "postgres",
    doc = "| [`PostgresBroker`](postgres::PostgresBroker) | `postgres` | processes that share a database | no | is made again, and reported as [`Lagged`] |"
)]
#![cfg_attr(
    not(feature = "postgres"),
    doc = "| `PostgresBroker` | `postgres` | processes that share a database | no | is made again, and reported as [`Lagged`] |"
)]
#![cfg_attr(
    feature = "redis",
    doc = "| [`RedisBroker`](redis::RedisBroker) | `redis` | processes that share a server or cluster | yes | is made again, and reported as [`Lagged`] |"
)]
#![cfg_attr(
    not(feature = "redis"),
    doc = "| `RedisBroker` | `redis` | processes that share a server or cluster | yes | is made again, and reported as [`Lagged`] |"
)]
//!
//! Over a network, publishing can fail; [`Error::may_have_been_done`] says whether another attempt can
//! make a duplicate. The feature `conformance` has the contract as tests, for brokers of your own.
//!
//! It is not a queue: nothing is kept, acknowledged or delivered again. Durable streams do that.

#![doc(test(attr(deny(unused_imports))))]

mod broker;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
mod listener;
mod mailbox;
mod message;
mod options;
mod panics;
mod pattern;
mod subscription;
pub mod telemetry;
mod topic;
mod topics;

#[cfg(feature = "postgres")]
pub use broker::postgres;
#[cfg(feature = "redis")]
pub use broker::redis;
pub use broker::{Broker, Membership, MemoryBroker, Publisher, Subscriber};
pub use error::Error;
pub use listener::Listener;
pub use mailbox::{Mailbox, Waiting};
pub use message::{Lagged, Message, Received};
pub use options::{Overflow, SubscribeOptions};
pub use pattern::Pattern;
pub use subscription::Subscription;
pub use tidings_reconnect::Cause;
pub use topic::{InvalidTopic, MAX_TOPIC_BYTES, Namespace, Topic};
pub use topics::Topics;

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
