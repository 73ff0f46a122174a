//! Per-user notifications: logs, live streams that resume exactly, the inbox, and presence.
//!
//! # The problem
//!
//! A notification must reach every open screen of its user, and wait for the screens that are not
//! open. Connections break all the time, so the hard part is what happens in between: nothing may be
//! lost, shown twice, or shown in another order, a slow screen may not cost memory, and if
//! something *is* missing, the stream must say so.
//!
//! # The model
//!
//! Every user has one **log**. Its events are numbered 1, 2, 3 … within an **epoch**, which is
//! random and new for each incarnation of the log. An [`EventId`] is both, `<epoch>-<seq>`; as a
//! **cursor** it names the last event that a reader has.
//!
//! ```text
//! push ──▶ Store (the truth) ──▶ ring of recent events ──▶ wake-up ──▶ Subscription
//!                │                 one per user with                   a cursor, no queue
//!                │                 open streams here                   reads the ring, or the
//!                │                                                     store when it lags
//!                ├── sweep: one query per instance, finds what a lost wake-up left out
//!                └── inbox: the same log, newest first, with an exact unread count
//! ```
//!
//! An event is stored first; readers are only woken. A lost wake-up costs time, never an event: the
//! sweep finds it within the poll interval. Wake-ups from outside come from the store, if it has some
//! ([`Store::wakes`]), or from the application ([`Notifier::hint`]); for each, one page of the user's log
//! is read, whatever the number of screens.
//!
//! | if | then |
//! |---|---|
//! | a reader is slow | its cursor stays behind and it reads the store, a bounded number of bytes at a time |
//! | an event is delivered twice, or late | the cursor decides: once, in order |
//! | a cursor is too old, foreign, ahead or garbage | an [`Item::Gap`] first, then the oldest event that is kept |
//! | the user has screens on three instances | a [`Router`] sends the event to each instance that [`Presence`] names; without one, the sweep finds it |
//! | two screens, one marks as read | the other gets an [`Item::Changed`] with the exact counts |
//!
//! # Example
//!
//! ```
//! use std::sync::Arc;
//!
//! use tidings_notify::{Draft, EventType, Item, MemoryStore, Notifier, Payload, Since, UserId};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let notifier = Notifier::new(Arc::new(MemoryStore::new()));
//! let ann = UserId::new("ann")?;
//!
//! let mut stream = notifier.subscribe(ann.clone(), Since::Now).await?;
//! let payload = Payload::parse(r#"{"from":"bob","text":"hello"}"#)?;
//! notifier.push(Draft::new(ann.clone(), EventType::new("message")?, payload)).await?;
//!
//! let cursor = loop {
//!     if let Item::Event(event) = stream.next().await? {
//!         println!("{}: {}", event.event_type, event.payload);
//!         break event.id;
//!     }
//! };
//! drop(stream);
//!
//! // Later, perhaps on another machine: resume where the client stopped.
//! let since = Since::Cursor(cursor.to_string());
//! let stream = notifier.subscribe(ann, since).await?;
//! # notifier.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Stores
//!
//! | store | feature | keeps |
//! |---|---|---|
//! | [`MemoryStore`] | | the newest events of each user, until the process ends |
#![cfg_attr(
    feature = "sqlite",
    doc = "| [`SqliteStore`](sqlite::SqliteStore) | `sqlite` | everything, on disk before a call returns |"
)]
#![cfg_attr(
    feature = "postgres",
    doc = "| [`PostgresStore`](postgres::PostgresStore) | `postgres` | everything, on the server's disk before a call returns, for several instances |"
)]
#![cfg_attr(
    feature = "redis",
    doc = "| [`RedisStore`](redis::RedisStore) | `redis` | the newest events of each user, for instances that share a server |"
)]
//!
//! Your own store implements [`Store`]; the feature `conformance` has the contract as functions.
//!
//! # What it is not
//!
//! It has no HTTP and no access control: a server adds these. What goes over its wire is in [`wire`]. It is
//! not a message queue: events belong to one user and are read by cursor, not shared out and acknowledged.

#![doc(test(attr(deny(unused_imports))))]

mod budget;
mod change;
#[cfg(feature = "conformance")]
pub mod conformance;
mod delivered;
mod error;
mod event;
mod event_id;
mod event_key;
mod hints;
mod hub;
mod inbox;
mod instance;
mod notifier;
mod payload;
pub mod presence;
mod router;
#[cfg(feature = "schema")]
#[doc(hidden)]
pub mod schema;
mod since;
mod store;
mod subscription;
pub mod telemetry;
mod user;
pub mod wire;

pub use change::{Changed, InboxAction, InboxChange, InboxUpdate, MAX_IDS};
pub use error::{Closed, Error, StoreError};
pub use event::{Draft, Event, EventType};
pub use event_id::{Epoch, EventId, InvalidEventId};
pub use event_key::EventKey;
pub use inbox::{
    DEFAULT_INBOX_LIMIT, InboxPage, InboxQuery, MAX_INBOX_LIMIT, MAX_INBOX_PAGE_BYTES,
};
pub use notifier::{
    DEFAULT_BUFFER_SIZE, DEFAULT_POLL_INTERVAL, InvalidOption, Notifier, NotifierBuilder,
    OfflinePolicy, Pushed,
};
pub use payload::{InvalidPayload, MAX_DEPTH, Payload};
pub use presence::{MemoryPresence, Presence};
pub use router::{RouteError, Router, RoutingInfo};
pub use since::Since;
#[cfg(feature = "import")]
pub use store::import;
#[cfg(feature = "postgres")]
pub use store::postgres;
#[cfg(feature = "redis")]
pub use store::redis;
#[cfg(feature = "sqlite")]
pub use store::sqlite;
pub use store::{
    ChangeMark, Changes, Head, LogChange, MAX_DRAFTS, MAX_PAGE_BYTES, MemoryStore, Page, Store,
    Wake, WakeChannel, WakeSender, Wakes,
};
pub use subscription::{Gap, GapReason, Hello, Item, Subscription};
pub use tidings_reconnect::Cause;
pub use user::{InvalidName, MAX_NAME_BYTES, UserId};

/// The examples of the README and of the handbook run.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[cfg_attr(feature = "sqlite", doc = include_str!("../../../docs/embed-notifications.md"))]
struct Readme;
