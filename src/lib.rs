//! An async webhook delivery client: signed, retried, bounded, and with a report of every outcome.
//!
//! The problem: a webhook goes to a server that other people run. That server may be down, slow,
//! broken or hostile, and the sender must neither lose a message without a report nor fail together
//! with the server.
//!
//! ```text
//! notify / enqueue / deliver
//!            │
//!            ▼
//!     bounded queue ──▶ workers ──▶ circuit breaker ──▶ one signed attempt ──▶ endpoint
//!            ▲                                                  │
//!            └── waiting for the next attempt ◀── retryable ────┼──▶ delivered
//!                (without a worker)                             └──▶ failed: error callback
//! ```
//!
//! | you have | use |
//! |---|---|
//! | one endpoint, messages to send in the background | [`Client`] |
//! | many endpoints, where a bad one must not delay the others | [`Dispatcher`] |
//! | your own queue and schedule | [`Sender`] for single attempts, [`retry::Schedule`], [`Verdict`] |
//! | webhooks to receive | [`signing::Verifier`] |
//! | receivers that must not have a key that can sign | `signing::PrivateKey` and `signing::PublicKey`, with the feature `v1a` |
//! | URLs from people you do not trust | [`AddressPolicy::PublicOnly`] |
//! | receivers whose statuses have another meaning | [`Classifier`] |
//! | an HTTP client of your own | [`transport`] |
//! | a [`tidings_notify`] notifier with other instances to reach | [`router::InstanceRouter`] |
//! | events to send to every endpoint that asked for them | [`router::WebhookRouter`] |
//! | receivers behind a proxy, or with certificates of your own | [`SenderBuilder`] |
//! | metrics and traces to collect | [`telemetry`] |
//!
//! ```
//! use tidings::{Client, signing::Secret};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("https://example.com/hooks")
//!     .secret(Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?)
//!     .retry(tidings::retry::RetryPolicy::default())
//!     .on_error(|error| eprintln!("{error}"))
//!     .build()?;
//! client.start();
//! client.notify("event occurred")?;
//! client.stop().await;
//! # Ok(()) }
//! ```
//!
//! Deliveries are *at least once*: an endpoint may get a message again, with the same `webhook-id`.
//! Queues are in memory: their messages are lost when the process ends, and [`Client::stop_within`]
//! returns those that could not be sent in time. It is not a message broker, and messages have no
//! order.
//!
//! # Features
//!
//! - `rustls` (default) and `native-tls` choose the TLS library; with both it is rustls, without
//!   either `https` URLs fail.
//! - `reqwest` (default) lets a `reqwest::ClientBuilder` replace the built-in transport.
//! - `v1a` adds signatures with a key pair.
//! - `backoff` lets a policy of the `backoff` crate decide the retry delays.

#![doc(test(attr(deny(unused_imports))))]

mod client;
mod dispatcher;
mod endpoint;
mod message;
mod outcome;

pub mod circuit_breaker;
pub mod retry;
pub mod signing;

mod address_guard;
mod attempt;
mod error;
mod panics;
mod pool;
mod resolver;
pub mod router;
mod sender;
pub mod telemetry;
pub mod transport;

pub use address_guard::{AddressPolicy, AddressRules, BlockedAddress};
pub use attempt::{
    Attempt, AttemptError, Classifier, ErrorKind, MAX_LOCATION_BYTES, MAX_RESPONSE_BYTES,
    MAX_RETRY_AFTER, Phases, Response, Verdict, parse_retry_after,
};
pub use client::{Client, ClientBuilder, DEFAULT_QUEUE_SIZE, DEFAULT_WORKERS};
pub use dispatcher::{Dispatcher, DispatcherBuilder, LaneConfig, LaneStatus, Speed};
pub use endpoint::{
    DEFAULT_CONTENT_TYPE, DEFAULT_TIMEOUT, Endpoint, EndpointBuilder, EndpointId, MAX_TIMEOUT,
};
pub use error::ConfigError;
pub use message::{InvalidContentType, InvalidMessageId, MAX_MESSAGE_ID_BYTES, Message};
pub(crate) use outcome::Closed;
pub use outcome::{Delivered, DeliveryError, DeliveryErrorCause, NotifyError, Refusal};
pub use resolver::{Resolve, ResolveError, Resolved};
pub use sender::{Sender, SenderBuilder};
pub use transport::HttpVersions;

/// Events and the notifier, which [`router`] and [`Message::from_event`] take.
pub use tidings_notify;

/// The examples of both READMEs and of the handbook compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
#[doc = include_str!("README.md")]
#[doc = include_str!("../docs/embed-client.md")]
#[doc = include_str!("../docs/receive-webhooks.md")]
struct Readme;
