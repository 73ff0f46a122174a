use std::fmt::{self, Debug};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tidings_notify::{Draft, Event};
use tidings_webhooks::{Delivery, Operation, OperationOutcome, PreparedEndpoint};

use super::{StorageError, StoredKey};
use crate::idempotency::Once;

/// Idempotency keys that one cleaning deletes at most, so that the transaction is short.
pub const CLEANED_AT_ONCE: u16 = 1000;

/// What the server itself keeps, and the operations that concern several parts at once.
///
/// # Contract
///
/// - **All or nothing.** A call has its whole effect or none, also when its future is dropped.
/// - **Durable.** When [`accept`](Self::accept) or [`change`](Self::change) returns, its effect survives a loss of
///   power, and of a database whose commits wait for a standby. So does the effect of an earlier request that is
///   repeated.
/// - **Once for an idempotency key**, on every handle of every instance. A request that had no effect leaves its key
///   unused.
/// - **Idempotency keys are shared.** One that a request has used is a conflict for every other request.
/// - **Read your writes**, on every handle of every instance.
/// - **Bounded steps.** No transaction grows with the number of users, endpoints or keys that are
///   stored, only with the request.
///
/// `conformance.rs` holds both engines to it.
#[async_trait]
pub trait Records: Debug + Send + Sync + 'static {
    /// Stores the notifications, the message that hands them to webhooks, and the idempotency key.
    async fn accept(&self, accept: Accept) -> Result<Accepted, StorageError>;

    /// Makes a change, and stores the idempotency key with the response.
    async fn change(&self, change: Change, keep: Option<Keep>) -> Result<Changed, StorageError>;

    /// Returns when all that can be read is as durable as what a call has stored. A caller may be told that something is
    /// done already only after that.
    async fn confirm(&self) -> Result<(), StorageError>;

    /// Takes a kind of work that one instance at a time does, or keeps it. Returns `false` while it is
    /// another instance's.
    async fn take_turn(&self, turn: &Turn<'_>) -> Result<bool, StorageError>;

    /// Succeeds if the database can be written now.
    async fn ready(&self) -> Result<(), StorageError>;

    /// Deletes idempotency keys that are too old to matter; returns how many. If they are fewer than
    /// [`CLEANED_AT_ONCE`], no more were left when it began.
    async fn clean(&self) -> Result<usize, StorageError>;

    /// Finishes what is queued, and refuses later calls. Closing twice is harmless.
    async fn close(&self);
}

/// Notifications to accept, all of them or none.
#[derive(Debug, Clone)]
pub struct Accept {
    /// What to store, in this order.
    pub drafts: Vec<Draft>,
    /// The idempotency key, if the caller sent one.
    pub once: Option<Once>,
}

/// Work that one instance at a time does.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// The name of the work.
    pub work: &'a str,
    /// Who wants to do it.
    pub instance: &'a str,
    /// How long it is that instance's, unless it takes the turn again.
    pub length: Duration,
}

/// What became of an [`Accept`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Accepted {
    /// The notifications are stored.
    Stored {
        /// With their ids.
        events: Vec<Event>,
        /// Whether an endpoint may match, so that fan-out has work.
        has_webhooks: bool,
    },
    /// The request was accepted before, and became these notifications. Nothing was stored.
    Repeated(Vec<Event>),
    /// The key was used for another request. Nothing was stored.
    Conflict,
}

/// A change of something else than notifications.
#[derive(Debug, Clone)]
pub enum Change {
    /// Stores an endpoint, unless its owner has as many as allowed.
    CreateEndpoint(Box<PreparedEndpoint>),
    /// Stores an API key, unless there are `limit` that have not expired when it is made. Of those that have expired,
    /// so many that expired last stay.
    CreateKey {
        /// The key.
        key: StoredKey,
        /// Maximum number of keys that have not expired.
        limit: u32,
    },
    /// Operates on an endpoint or its deliveries.
    Operate(Operation),
}

/// What makes a change repeatable.
#[derive(Clone)]
pub struct Keep {
    /// Which request it is.
    pub once: Once,
    /// What is kept for a repeat, beside the idempotency key.
    pub respond: Respond,
}

/// Makes the text of a response from the delivery of [`Changed::Made`].
pub type Respond = Arc<dyn Fn(Option<&Delivery>) -> Result<String, StorageError> + Send + Sync>;

/// The response may be secret.
impl Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keep").field(&self.once).finish()
    }
}

/// What became of a [`Change`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// The change is stored. Of an operation that has one, the delivery.
    Made(Option<Delivery>),
    /// The change was made before, and this was kept. Nothing was stored.
    Repeated(String),
    /// The key was used for another request. Nothing was stored.
    Conflict,
    /// Another transaction has the key. Nothing was stored.
    Running,
    /// There are as many endpoints of the owner, or API keys, as allowed. Nothing was stored.
    TooMany {
        /// How many are allowed.
        limit: usize,
    },
    /// There is nothing to do the operation on. Nothing was stored.
    Refused,
    /// The endpoint was changed after the operation was prepared. Nothing was stored.
    Contended,
}

impl Changed {
    pub(super) fn too_many_keys(limit: u32) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        Self::TooMany { limit }
    }
}

impl From<OperationOutcome> for Changed {
    fn from(outcome: OperationOutcome) -> Self {
        match outcome {
            OperationOutcome::Done(delivery) => Self::Made(delivery),
            OperationOutcome::Refused => Self::Refused,
            OperationOutcome::Contended => Self::Contended,
        }
    }
}
