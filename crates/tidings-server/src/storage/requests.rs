//! What is known of requests by their idempotency keys.

use std::fmt::Debug;

use async_trait::async_trait;
use jiff::SignedDuration;

use super::{Accept, Accepted, StorageError};
use crate::idempotency::Once;

/// The requests that were made under an idempotency key, also by the operations of
/// [`Records`](super::Records), which store their keys themselves.
///
/// # Contract
///
/// - **One at a time.** Of calls of [`begin`](Self::begin) for one key, on every handle of every instance, one
///   returns [`Begun::New`] until the request is [finished](Self::finish).
/// - **Durable.** What has begun and what is finished survives a loss of power.
/// - **Keys are shared** by all operations: a key that one has used is a conflict for another.
///
/// `storage/conformance.rs` holds both engines to it.
#[async_trait]
pub(crate) trait Requests: Debug + Send + Sync + 'static {
    /// What [`accept`](super::Records::accept) would return without storing anything: `None` for a request that is
    /// new. One that is being stored counts as new.
    async fn earlier(&self, accept: Accept) -> Result<Option<Accepted>, StorageError>;

    /// Begins a request, so that it is carried out once. It [ends](Self::finish) with its response; after
    /// [`LONGEST_RUN`](crate::idempotency::LONGEST_RUN) without one it begins anew.
    async fn begin(&self, once: &Once) -> Result<Begun, StorageError>;

    /// Keeps the response of a request that has begun; or, with `None`, forgets the request, which has failed.
    async fn finish(&self, once: &Once, response: Option<String>) -> Result<(), StorageError>;

    /// A page of the requests behind this key, in the order of the keys; empty at the end.
    async fn responses(&self, after: &str) -> Result<Vec<KeptResponse>, StorageError>;

    /// Replaces responses that are still what they were.
    async fn replace_responses(&self, new: Vec<NewResponse>) -> Result<(), StorageError>;
}

/// What became of the begin of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Begun {
    /// The request must be carried out.
    New,
    /// Another request with this key is being carried out.
    Running {
        /// How long, if it does not end before.
        left: SignedDuration,
    },
    /// The request was made before, and this was its response.
    Repeated(String),
    /// The key was used for another request.
    Conflict,
}

/// A request as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptResponse {
    pub(crate) key: String,
    /// `None` of notifications, and while the request is being carried out.
    pub(crate) response: Option<String>,
}

/// A response in another form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewResponse {
    pub(crate) key: String,
    pub(crate) old: String,
    pub(crate) new: String,
}
