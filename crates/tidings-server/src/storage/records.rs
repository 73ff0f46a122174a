use std::fmt::Debug;

use async_trait::async_trait;
use tidings_notify::{Draft, Event};

use super::StorageError;
use crate::idempotency::Once;

/// What the server itself keeps, and the operations that concern several parts at once.
///
/// # Contract
///
/// - **All or nothing.** A call has its whole effect or none, also when its future is dropped.
/// - **Durable.** When [`accept`](Self::accept) returns, its effect survives a loss of power.
/// - **Read your writes**, on every handle of every instance.
/// - **Bounded steps.** No transaction grows with the number of users, endpoints or keys that are
///   stored, only with the request.
///
/// `storage/conformance.rs` tests both halves against it.
#[async_trait]
pub(crate) trait Records: Debug + Send + Sync + 'static {
    /// Stores the notifications, the message that hands them to webhooks, and the idempotency key.
    async fn accept(&self, accept: Accept) -> Result<Accepted, StorageError>;

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
