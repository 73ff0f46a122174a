use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use tidings_notify::{Draft, Event};
use tidings_webhooks::PreparedEndpoint;

use super::StorageError;
use crate::idempotency::Once;

/// What the server itself keeps, and the operations that concern several parts at once.
///
/// # Contract
///
/// - **All or nothing.** A call has its whole effect or none, also when its future is dropped.
/// - **Durable.** When [`accept`](Self::accept) or [`create_endpoint`](Self::create_endpoint) returns,
///   its effect survives a loss of power.
/// - **Keys are shared.** A key that one operation has used is a conflict for the other.
/// - **Read your writes**, on every handle of every instance.
/// - **Bounded steps.** No transaction grows with the number of users, endpoints or keys that are
///   stored, only with the request.
///
/// `storage/conformance.rs` holds both engines to it.
#[async_trait]
pub(crate) trait Records: Debug + Send + Sync + 'static {
    /// Stores the notifications, the message that hands them to webhooks, and the idempotency key.
    async fn accept(&self, accept: Accept) -> Result<Accepted, StorageError>;

    /// Stores an endpoint and the idempotency key.
    async fn create_endpoint(&self, create: CreateEndpoint) -> Result<Created, StorageError>;

    /// Takes a kind of work that one instance at a time does, or keeps it. Returns `false` while it is
    /// another instance's.
    async fn take_turn(&self, turn: &Turn<'_>) -> Result<bool, StorageError>;

    /// Succeeds if the database can be written now.
    async fn ready(&self) -> Result<(), StorageError>;

    /// Deletes idempotency keys that are too old to matter; returns how many, at most a thousand.
    async fn clean(&self) -> Result<usize, StorageError>;

    /// Finishes what is queued, and refuses later calls. Closing twice is harmless.
    async fn close(&self);
}

/// Notifications to accept, all of them or none.
#[derive(Debug, Clone)]
pub(crate) struct Accept {
    pub(crate) drafts: Vec<Draft>,
    /// The idempotency key, if the caller sent one.
    pub(crate) once: Option<Once>,
}

/// Work that one instance at a time does.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Turn<'a> {
    /// The name of the work.
    pub(crate) work: &'a str,
    /// Who wants to do it.
    pub(crate) instance: &'a str,
    /// How long it is that instance's, unless it takes the turn again.
    pub(crate) length: Duration,
}

/// What became of an [`Accept`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// The notifications are stored.
    Stored {
        events: Vec<Event>,
        /// Whether an endpoint may match, so that fan-out has work.
        has_webhooks: bool,
    },
    /// The request was accepted before, and became these notifications. Nothing was stored.
    Repeated(Vec<Event>),
    /// The key was used for another request. Nothing was stored.
    Conflict,
}

/// An endpoint to store.
#[derive(Debug, Clone)]
pub(crate) struct CreateEndpoint {
    pub(crate) endpoint: PreparedEndpoint,
    /// What is kept for a repeated request, beside the idempotency key.
    pub(crate) response: String,
    /// The idempotency key, if the caller sent one.
    pub(crate) once: Option<Once>,
}

/// What became of a [`CreateEndpoint`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Created {
    /// The endpoint is stored.
    Stored,
    /// The request was made before, and this was its response. Nothing was stored.
    Repeated(String),
    /// The key was used for another request. Nothing was stored.
    Conflict,
    /// The owner has as many endpoints as allowed. Nothing was stored.
    TooMany { limit: usize },
}
