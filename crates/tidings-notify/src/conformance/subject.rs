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
    limited: Option<Limited>,
    keeping: Option<Limited>,
    /// What the store needs, for as long as the subject is used.
    kept: Box<dyn Any + Send + Sync>,
}

/// A handle that keeps so many events of each user.
pub(super) struct Limited {
    pub(super) max: u64,
    pub(super) store: Arc<dyn Store>,
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
            limited: None,
            keeping: None,
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

    /// Adds a handle of the same store that keeps at most so many events of each user, at the latest after
    /// a [`cleanup`](Store::cleanup); at least four.
    pub fn with_limit(mut self, max: u64, store: impl Store) -> Self {
        let store = Arc::new(store);
        self.limited = Some(Limited { max, store });
        self
    }

    /// Adds a handle of the same store that keeps at most so many events of each user, but the oldest
    /// unread event and what came after it in any case.
    pub fn with_unread_kept(mut self, max: u64, store: impl Store) -> Self {
        let store = Arc::new(store);
        self.keeping = Some(Limited { max, store });
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

    pub(super) fn limited(&self) -> Option<(u64, &dyn Store)> {
        let limited = self.limited.as_ref()?;
        Some((limited.max, &*limited.store))
    }

    pub(super) fn unread_kept(&self) -> Option<(u64, &dyn Store)> {
        let keeping = self.keeping.as_ref()?;
        Some((keeping.max, &*keeping.store))
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
