use std::any::Any;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{Draft, Store};

/// A new, empty store, with what the suite needs to look at it from two sides.
#[must_use]
pub struct Subject {
    store: Arc<dyn Store>,
    second: Arc<dyn Store>,
    transactions: Option<Arc<dyn Transactions>>,
    /// What the store needs, for as long as the subject is used.
    kept: Box<dyn Any + Send + Sync>,
}

/// How the suite holds a transaction open, for stores whose writers run at the same time.
#[async_trait]
pub trait Transactions: Send + Sync {
    /// Appends the drafts in a transaction, and returns before it is committed.
    async fn append(&self, drafts: Vec<Draft>) -> Box<dyn OpenTransaction>;
}

/// A transaction that has appended and is not committed.
#[async_trait]
pub trait OpenTransaction: Send {
    /// Commits it.
    async fn commit(self: Box<Self>);

    /// Rolls it back.
    async fn roll_back(self: Box<Self>);
}

impl Subject {
    /// A store with one handle.
    pub fn new(store: impl Store) -> Self {
        let store: Arc<dyn Store> = Arc::new(store);
        Self {
            second: store.clone(),
            store,
            transactions: None,
            kept: Box::new(()),
        }
    }

    /// Adds a second handle of the same store, as another process would have it. Without one, the
    /// first is used.
    pub fn with_second_handle(mut self, store: impl Store) -> Self {
        self.second = Arc::new(store);
        self
    }

    /// Says how to hold a transaction open. A store whose writers wait for one another leaves it out,
    /// and with it the rules about such transactions.
    pub fn with_transactions(mut self, transactions: impl Transactions + 'static) -> Self {
        self.transactions = Some(Arc::new(transactions));
        self
    }

    /// Keeps a value for as long as the store is used, for instance its folder.
    pub fn keeping(mut self, kept: impl Any + Send + Sync) -> Self {
        self.kept = Box::new(kept);
        self
    }

    pub(super) fn store(&self) -> &dyn Store {
        &*self.store
    }

    pub(super) fn second(&self) -> &dyn Store {
        &*self.second
    }

    pub(super) fn transactions(&self) -> Option<&dyn Transactions> {
        self.transactions.as_deref()
    }
}

impl<'a> From<&'a Subject> for &'a dyn Store {
    fn from(subject: &'a Subject) -> Self {
        subject.store()
    }
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}
