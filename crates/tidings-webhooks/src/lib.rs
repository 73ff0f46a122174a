//! Webhooks that outlive a process.
//!
//! An application accepts events in its own transactions. They reach every endpoint that wants them,
//! also after long failures of the endpoint and restarts of the application. Several instances of the
//! application share the work.
//!
//! ```text
//! your transaction ──▶ stream of accepted events ──▶ fan-out ──▶ deliveries ──▶ lanes ──▶ endpoints
//!   accept_in            one small message            unique        one row      leased by
//!                                                     by event     for each      instances
//!                                                   and endpoint
//! ```
//!
//! # The way of a delivery
//!
//! | what happens | what follows |
//! |---|---|
//! | an event is accepted | one message on a durable stream, and nothing if no endpoint can want it |
//! | the fan-out handles it | the event is stored once, and a pending delivery for each endpoint |
//! | a delivery is due | the instance that has the endpoint's lane makes an attempt |
//! | 2xx | it is **delivered** |
//! | 410 | it has **failed**, and the endpoint is disabled |
//! | anything else | the next attempt follows the [schedule](Options::with_schedule); after the last it has **failed**, and is kept |
//! | the endpoint is disabled or removed | it is **cancelled** |
//! | [`retry`](Webhooks::retry), [`replay`](Webhooks::replay) | it is pending again |
//!
//! Deliveries are *at least once*, under the event's id as `webhook-id`. First attempts go out in the
//! order of acceptance. Several attempts in progress at once, or a retry, change that order. A store that
//! fails does not: what was accepted waits for it. Only what a store that can be reached refuses again and again
//! ([`StoreError::Backend`]) lets later events pass.
//!
//! # Stores
//!
//! `sqlite::SqliteStore` (feature `sqlite`) keeps everything in a file, `postgres::PostgresStore`
//! (feature `postgres`) in a PostgreSQL database that many instances share. The feature `conformance`
//! has the tests for a [`Store`] of your own.
//!
//! # What it is not
//!
//! It is not a queue for other work than webhooks, and it does not receive them.

#![doc(test(attr(deny(unused_imports))))]

mod delivery;
pub mod encryption;
mod endpoint;
mod error;
mod event;
mod health;
mod ids;
mod options;
mod pattern;
mod replay;
#[cfg(feature = "schema")]
mod schema;
mod settings;
pub mod store;
mod webhooks;

mod clock;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod columns;
mod fan_out;
mod lanes;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod tally;
mod target;
pub mod telemetry;

#[cfg(feature = "conformance")]
pub mod conformance;
#[cfg(feature = "import")]
pub mod import;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;

pub use delivery::{AttemptRecord, Delivery, DeliveryQuery, DeliveryState};
pub use endpoint::{Endpoint, Owner};
pub use error::{Error, StoreError};
pub use event::{Format, WebhookEvent};
pub use fan_out::STREAM;
pub use health::{EndpointHealth, MAX_COUNTED, ReplayProgress};
pub use ids::{DeliveryId, EndpointId, InvalidId};
pub use options::Options;
pub use pattern::{EventPattern, InvalidPattern, MAX_PATTERNS};
pub use replay::{MAX_REPLAY_RATE, Replay};
pub use settings::{
    EndpointSettings, MAX_RATE_LIMIT, MAX_USER_TIMEOUT, MAX_WAITS, SignatureScheme,
};
pub use store::Store;
pub use tidings_reconnect::Cause;
pub use webhooks::{
    FanOutLag, MAX_OVERLAP, NewEndpoint, PreparedEndpoint, SetEnabled, StopReport, Webhooks,
};
#[cfg(any(feature = "sqlite", feature = "postgres"))]
pub use webhooks::{Operation, OperationOutcome};

/// The example of the README compiles.
#[cfg(all(doctest, feature = "sqlite"))]
#[doc = include_str!("../README.md")]
struct Readme;
