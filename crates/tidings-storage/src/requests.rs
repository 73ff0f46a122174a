//! What is known of requests by their idempotency keys.

use std::fmt::Debug;

use async_trait::async_trait;

use super::{Accept, Accepted, Changed, StorageError};
use crate::idempotency::Once;

/// The requests that were made under an idempotency key, by the operations of [`Records`](super::Records).
///
/// `conformance.rs` holds both engines to it.
#[async_trait]
pub trait Requests: Debug + Send + Sync + 'static {
    /// What [`accept`](super::Records::accept) would return without storing anything: `None` for a request that is
    /// new. One that is being stored counts as new.
    async fn earlier(&self, accept: Accept) -> Result<Option<Accepted>, StorageError>;

    /// What [`change`](super::Records::change) would return without making a change: `None` for a request that is
    /// new. One that is being stored counts as new.
    async fn earlier_change(&self, once: &Once) -> Result<Option<Changed>, StorageError>;

    /// A page of the requests behind this key, in the order of the keys; empty at the end.
    async fn responses(&self, after: &str) -> Result<Vec<KeptResponse>, StorageError>;

    /// Replaces responses that are still what they were.
    async fn replace_responses(&self, new: Vec<NewResponse>) -> Result<(), StorageError>;
}

/// A request as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptResponse {
    /// The idempotency key, after its namespace.
    pub key: String,
    /// `None` of notifications.
    pub response: Option<String>,
}

/// A response in another form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewResponse {
    /// The idempotency key, after its namespace.
    pub key: String,
    /// What is stored.
    pub old: String,
    /// What takes its place.
    pub new: String,
}
