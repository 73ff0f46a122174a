use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use jiff::Timestamp;

use super::{ChangeMark, Changes, Head, Page, Store};
use crate::read::{ReadScope, ReadUpdate};
use crate::{Draft, Event, EventId, InboxPage, InboxQuery, StoreError, UserId};

/// Any [`Store`], behind one type. Clones share the store.
#[derive(Clone)]
pub struct DynStore(Arc<dyn ErasedStore>);

impl DynStore {
    /// Hides the type of a store.
    pub fn new(store: impl Store) -> Self {
        Self(Arc::new(store))
    }
}

impl fmt::Debug for DynStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DynStore")
    }
}

impl Store for DynStore {
    async fn append(&self, drafts: Vec<Draft>) -> Result<Vec<Event>, StoreError> {
        self.0.append_boxed(drafts).await
    }

    async fn read(&self, user: &UserId, after: u64, limit: usize) -> Result<Page, StoreError> {
        self.0.read_boxed(user, after, limit).await
    }

    async fn head(&self, user: &UserId) -> Result<Head, StoreError> {
        self.0.head_boxed(user).await
    }

    async fn find(&self, user: &UserId, id: EventId) -> Result<Option<Event>, StoreError> {
        self.0.find_boxed(user, id).await
    }

    async fn inbox(&self, user: &UserId, query: &InboxQuery) -> Result<InboxPage, StoreError> {
        self.0.inbox_boxed(user, query).await
    }

    async fn mark_read(
        &self,
        user: &UserId,
        scope: &ReadScope,
        at: Timestamp,
    ) -> Result<ReadUpdate, StoreError> {
        self.0.mark_read_boxed(user, scope, at).await
    }

    async fn mark_delivered(&self, marks: Vec<(UserId, EventId)>) -> Result<(), StoreError> {
        self.0.mark_delivered_boxed(marks).await
    }

    async fn cursor_before(&self, user: &UserId, time: Timestamp) -> Result<EventId, StoreError> {
        self.0.cursor_before_boxed(user, time).await
    }

    async fn mark(&self) -> Result<ChangeMark, StoreError> {
        self.0.mark_boxed().await
    }

    async fn changes(&self, after: ChangeMark, limit: usize) -> Result<Changes, StoreError> {
        self.0.changes_boxed(after, limit).await
    }

    async fn cleanup(&self, cutoff: Timestamp) -> Result<u64, StoreError> {
        self.0.cleanup_boxed(cutoff).await
    }

    async fn close(&self) {
        self.0.close_boxed().await;
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
type Answer<'a, T> = Boxed<'a, Result<T, StoreError>>;

trait ErasedStore: Send + Sync {
    fn append_boxed(&self, drafts: Vec<Draft>) -> Answer<'_, Vec<Event>>;
    fn read_boxed<'a>(&'a self, user: &'a UserId, after: u64, limit: usize) -> Answer<'a, Page>;
    fn head_boxed<'a>(&'a self, user: &'a UserId) -> Answer<'a, Head>;
    fn find_boxed<'a>(&'a self, user: &'a UserId, id: EventId) -> Answer<'a, Option<Event>>;
    fn inbox_boxed<'a>(&'a self, user: &'a UserId, query: &'a InboxQuery) -> Answer<'a, InboxPage>;
    fn mark_read_boxed<'a>(
        &'a self,
        user: &'a UserId,
        scope: &'a ReadScope,
        at: Timestamp,
    ) -> Answer<'a, ReadUpdate>;
    fn mark_delivered_boxed(&self, marks: Vec<(UserId, EventId)>) -> Answer<'_, ()>;
    fn cursor_before_boxed<'a>(&'a self, user: &'a UserId, time: Timestamp) -> Answer<'a, EventId>;
    fn mark_boxed(&self) -> Answer<'_, ChangeMark>;
    fn changes_boxed(&self, after: ChangeMark, limit: usize) -> Answer<'_, Changes>;
    fn cleanup_boxed(&self, cutoff: Timestamp) -> Answer<'_, u64>;
    fn close_boxed(&self) -> Boxed<'_, ()>;
}

impl<S: Store> ErasedStore for S {
    fn append_boxed(&self, drafts: Vec<Draft>) -> Answer<'_, Vec<Event>> {
        Box::pin(self.append(drafts))
    }

    fn read_boxed<'a>(&'a self, user: &'a UserId, after: u64, limit: usize) -> Answer<'a, Page> {
        Box::pin(self.read(user, after, limit))
    }

    fn head_boxed<'a>(&'a self, user: &'a UserId) -> Answer<'a, Head> {
        Box::pin(self.head(user))
    }

    fn find_boxed<'a>(&'a self, user: &'a UserId, id: EventId) -> Answer<'a, Option<Event>> {
        Box::pin(self.find(user, id))
    }

    fn inbox_boxed<'a>(&'a self, user: &'a UserId, query: &'a InboxQuery) -> Answer<'a, InboxPage> {
        Box::pin(self.inbox(user, query))
    }

    fn mark_read_boxed<'a>(
        &'a self,
        user: &'a UserId,
        scope: &'a ReadScope,
        at: Timestamp,
    ) -> Answer<'a, ReadUpdate> {
        Box::pin(self.mark_read(user, scope, at))
    }

    fn mark_delivered_boxed(&self, marks: Vec<(UserId, EventId)>) -> Answer<'_, ()> {
        Box::pin(self.mark_delivered(marks))
    }

    fn cursor_before_boxed<'a>(&'a self, user: &'a UserId, time: Timestamp) -> Answer<'a, EventId> {
        Box::pin(self.cursor_before(user, time))
    }

    fn mark_boxed(&self) -> Answer<'_, ChangeMark> {
        Box::pin(self.mark())
    }

    fn changes_boxed(&self, after: ChangeMark, limit: usize) -> Answer<'_, Changes> {
        Box::pin(self.changes(after, limit))
    }

    fn cleanup_boxed(&self, cutoff: Timestamp) -> Answer<'_, u64> {
        Box::pin(self.cleanup(cutoff))
    }

    fn close_boxed(&self) -> Boxed<'_, ()> {
        Box::pin(self.close())
    }
}
