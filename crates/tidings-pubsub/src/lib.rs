//! Topics: fire-and-forget fan-out to whoever listens now.
//!
//! Parts of a system that want to hear of something should not have to be known to the part that
//! it happens in. A [`Publisher`] sends a payload to a [`Topic`], and every [`Subscription`] that
//! has the topic at that moment gets a copy. When there is none, the message is gone: this is a
//! transport without memory. Filters, types and retries are the business of whoever builds on it.
//!
//! ```text
//!                             ┌──▶ mailbox ──▶ Subscription   (a stream)
//! publish(topic, payload) ──▶ ├──▶ mailbox ──▶ Subscription
//!                             └──▶ mailbox ──▶ Listener       (a handler with a task of its own)
//! ```
//!
//! Each subscription has a bounded mailbox. A slow one fills its own and delays nobody else; what
//! happens when it is full is its own choice:
//!
//! | [`Overflow`] | a message that finds the mailbox full | the subscriber learns |
//! |---|---|---|
//! | `DropOldest` (default) | takes the place of the oldest one | [`Lagged`], before what is left |
//! | `DropNewest` | is dropped | [`Lagged`], after what was there |
//! | `Wait(limit)` | makes its publisher wait for room, then is dropped | [`Lagged`], after what was there |
//!
//! A subscription has topics, takes on more and gives them up while it lives. With a [`Pattern`] it has
//! all topics whose names are alike, where the broker can do that. However many of its topics and
//! patterns a message belongs to, it comes once.
//!
//! A loss is never silent: [`Lagged`] stands in the stream where messages are missing, with their
//! exact number as long as the broker can know it.
//!
//! ```
//! use tidings_pubsub::{Memory, Namespace, Options, Publisher, Received, Subscriber};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let broker = Memory::new();
//! let orders = Namespace::default().topic("orders")?; // app.default.orders
//!
//! let mut subscription = broker.subscribe([orders.clone()], Options::default()).await?;
//! broker.publish(&orders, "order 7 was paid").await?;
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
//! Code that is generic over [`Broker`] runs on any of them, and [`DynBroker`] lets a program choose
//! at run time:
//!
//! | broker | feature | reaches | patterns | a connection that breaks |
//! |---|---|---|---|---|
//! | [`Memory`] | | one process | yes | |
#![cfg_attr(
    feature = "postgres",
    doc = "| [`Postgres`] | `postgres` | whoever shares a database | no | is made again, and reported as [`Lagged`] |"
)]
#![cfg_attr(
    not(feature = "postgres"),
    doc = "| `Postgres` | `postgres` | whoever shares a database | no | is made again, and reported as [`Lagged`] |"
)]
#![cfg_attr(
    feature = "redis",
    doc = "| [`Redis`] | `redis` | whoever shares a server or cluster | yes | is made again, and reported as [`Lagged`] |"
)]
#![cfg_attr(
    not(feature = "redis"),
    doc = "| `Redis` | `redis` | whoever shares a server or cluster | yes | is made again, and reported as [`Lagged`] |"
)]
//!
//! Over a network, publishing can fail, and [`Error::may_have_been_sent`] tells whether trying again
//! can make a duplicate. The feature `conformance` has the contract as tests, for brokers of your own.
//!
//! It is not a queue: nothing is kept, acknowledged or delivered again. That is what durable streams
//! are for.

mod broker;
#[cfg(feature = "conformance")]
pub mod conformance;
mod directory;
mod dyn_broker;
mod error;
mod interest;
mod listener;
mod mailbox;
mod memory;
mod message;
mod options;
mod pattern;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod remote;
mod subscription;
mod topic;

pub use broker::{Broker, Membership, Publisher, Subscriber};
pub use dyn_broker::DynBroker;
pub use error::Error;
pub use listener::Listener;
pub use mailbox::{Mailbox, Waiting};
pub use memory::Memory;
pub use message::{Lagged, Message, Received};
pub use options::{Options, Overflow};
pub use pattern::Pattern;
#[cfg(feature = "postgres")]
pub use postgres::{Postgres, PostgresConfig};
#[cfg(feature = "redis")]
pub use redis::{Redis, RedisConfig};
pub use subscription::Subscription;
pub use topic::{InvalidTopic, MAX_TOPIC_BYTES, Namespace, Topic};
