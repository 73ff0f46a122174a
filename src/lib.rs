//! An async webhook delivery client: signed, retried, bounded, and honest about what happened.
//!
//! The problem: a webhook goes to a server that belongs to others. It is down, slow, broken or
//! hostile at the worst of times, and the sender must neither lose a message silently nor fail
//! with it.
//!
//! ```text
//! notify / enqueue / deliver
//!            │
//!            ▼
//!     bounded queue ──▶ workers ──▶ circuit breaker ──▶ one signed attempt ──▶ endpoint
//!            ▲                                                  │
//!            └── waiting for the next attempt ◀── retryable ────┼──▶ delivered
//!                (in no worker)                                 └──▶ failed: error callback
//! ```
//!
//! | you have | use |
//! |---|---|
//! | one endpoint, messages to send in the background | [`Client`] |
//! | many endpoints, of which a bad one must harm only itself | [`Dispatcher`] |
//! | your own queue and schedule | [`Sender`] for single attempts, [`retry::Schedule`], [`Verdict`] |
//! | webhooks to receive | [`signing::Verifier`] |
//! | receivers that are to hold nothing that could sign | [`signing::PrivateKey`], [`signing::PublicKey`] |
//! | URLs that strangers chose | [`AddressPolicy::PublicOnly`] |
//! | a [`tidings_notify`] notifier with other instances to reach | [`router::InstanceRouter`] |
//! | events to send to every endpoint that asked for them | [`router::WebhookRouter`] |
//! | receivers with certificates of your own authority | [`SenderBuilder::root_certificates`] |
//! | questions about what it does in production | [`telemetry`] |
//!
//! ```
//! use tidings::{Client, signing::Secret};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::builder("https://example.com/hooks")
//!     .secret(Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?)
//!     .retry(tidings::retry::RetryPolicy::default())
//!     .on_error(|message, error| eprintln!("{}: {error}", message.id()))
//!     .build()?;
//! client.start();
//! client.notify("event occurred")?;
//! client.stop().await;
//! # Ok(()) }
//! ```
//!
//! Deliveries are *at least once*: an endpoint may get a message again, under the same
//! `webhook-id`. Queues are in memory: what they hold is gone with the process, and
//! [`Client::stop_within`] hands back what could not be sent in time. It is not a message broker,
//! and it promises no order between messages.
//!
//! # Features
//!
//! `rustls` (default) and `native-tls` choose who does TLS; with both it is rustls, without either
//! `https` URLs fail.
//! `backoff` lets a policy of the `backoff` crate decide the retry delays.

mod client;
mod dispatcher;
mod endpoint;
mod message;
mod outcome;

pub mod circuit_breaker;
pub mod retry;
pub mod signing;

mod address_guard;
mod classify;
mod error;
mod pool;
mod resolver;
pub mod router;
mod sender;
pub mod telemetry;

pub use address_guard::{AddressPolicy, BlockedAddress};
pub use classify::{ErrorKind, MAX_RETRY_AFTER, Verdict, parse_retry_after};
pub use client::{Client, ClientBuilder, DEFAULT_QUEUE_SIZE, DEFAULT_WORKERS};
pub use dispatcher::{Dispatcher, DispatcherBuilder, LaneConfig, LaneStatus, Speed};
pub use endpoint::{DEFAULT_CONTENT_TYPE, DEFAULT_TIMEOUT, Endpoint, EndpointBuilder, EndpointId};
pub use error::ConfigError;
pub use message::{InvalidMessageId, MAX_MESSAGE_ID_BYTES, Message};
pub use outcome::{DeliveryError, DeliveryErrorCause, NotifyError, Receipt, Refusal};
pub use retry::RetryBudget;
pub use sender::{
    Answer, Attempt, AttemptError, MAX_ANSWER_BYTES, MAX_LOCATION_BYTES, Phases, Sender,
    SenderBuilder,
};

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
