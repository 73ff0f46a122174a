//! Any engine behind one type.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::{Claimed, ConsumerKey, Engine, GroupKey, Receipt, Settlement, Wakes};
use crate::{
    Error, Member, Message, MessageId, NewMessage, PendingMessage, Retention, StartFrom,
    StreamName, StreamStats,
};

/// Any [`Engine`], behind one type. Clones share it.
#[derive(Clone)]
pub struct DynEngine(Arc<dyn ErasedEngine>);

impl DynEngine {
    /// Hides the type of an engine.
    pub fn new(engine: impl Engine) -> Self {
        Self(Arc::new(engine))
    }

    /// A handle that does not keep the engine.
    pub(crate) fn downgrade(&self) -> WeakEngine {
        WeakEngine(Arc::downgrade(&self.0))
    }
}

/// A [`DynEngine`] for as long as somebody else has it.
pub(crate) struct WeakEngine(Weak<dyn ErasedEngine>);

impl WeakEngine {
    /// The engine; `None` once everybody else has dropped it.
    pub(crate) fn upgrade(&self) -> Option<DynEngine> {
        self.0.upgrade().map(DynEngine)
    }
}

impl fmt::Debug for DynEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DynEngine")
    }
}

impl Engine for DynEngine {
    async fn append(
        &self,
        stream: &StreamName,
        messages: Vec<NewMessage>,
        retention: Retention,
    ) -> Result<Vec<MessageId>, Error> {
        self.0.append_boxed(stream, messages, retention).await
    }

    async fn open_group(&self, group: &GroupKey, start: StartFrom) -> Result<(), Error> {
        self.0.open_group_boxed(group, start).await
    }

    async fn seek(&self, group: &GroupKey, to: StartFrom) -> Result<(), Error> {
        self.0.seek_boxed(group, to).await
    }

    async fn delete_group(&self, group: &GroupKey) -> Result<bool, Error> {
        self.0.delete_group_boxed(group).await
    }

    async fn delete_stream(&self, stream: &StreamName) -> Result<bool, Error> {
        self.0.delete_stream_boxed(stream).await
    }

    async fn claim(
        &self,
        consumer: &ConsumerKey,
        max: usize,
        visibility: Duration,
    ) -> Result<Claimed, Error> {
        self.0.claim_boxed(consumer, max, visibility).await
    }

    async fn settle(
        &self,
        group: &GroupKey,
        settlements: Arc<[Settlement]>,
    ) -> Result<Vec<bool>, Error> {
        self.0.settle_boxed(group, settlements).await
    }

    async fn extend(
        &self,
        group: &GroupKey,
        receipts: Arc<[Receipt]>,
        visibility: Duration,
    ) -> Result<Vec<bool>, Error> {
        self.0.extend_boxed(group, receipts, visibility).await
    }

    async fn ready(&self, groups: Arc<[GroupKey]>) -> Result<Vec<bool>, Error> {
        self.0.ready_boxed(groups).await
    }

    async fn check_in(&self, consumers: Arc<[ConsumerKey]>, ttl: Duration) -> Result<(), Error> {
        self.0.check_in_boxed(consumers, ttl).await
    }

    async fn trim(&self) -> Result<u64, Error> {
        self.0.trim_boxed().await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<StreamName>, Error> {
        self.0.list_boxed(prefix).await
    }

    async fn stats(&self, stream: &StreamName) -> Result<StreamStats, Error> {
        self.0.stats_boxed(stream).await
    }

    async fn read(
        &self,
        stream: &StreamName,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<Message>, Error> {
        self.0.read_boxed(stream, after, max).await
    }

    async fn pending(
        &self,
        group: &GroupKey,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<PendingMessage>, Error> {
        self.0.pending_boxed(group, after, max).await
    }

    async fn members(&self, group: &GroupKey) -> Result<Vec<Member>, Error> {
        self.0.members_boxed(group).await
    }

    fn wakes(&self) -> &Wakes {
        self.0.wakes_erased()
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// [`Engine`] as an object. The names differ so that a call is never ambiguous.
trait ErasedEngine: Send + Sync {
    fn append_boxed<'a>(
        &'a self,
        stream: &'a StreamName,
        messages: Vec<NewMessage>,
        retention: Retention,
    ) -> Boxed<'a, Vec<MessageId>>;
    fn open_group_boxed<'a>(&'a self, group: &'a GroupKey, start: StartFrom) -> Boxed<'a, ()>;
    fn seek_boxed<'a>(&'a self, group: &'a GroupKey, to: StartFrom) -> Boxed<'a, ()>;
    fn delete_group_boxed<'a>(&'a self, group: &'a GroupKey) -> Boxed<'a, bool>;
    fn delete_stream_boxed<'a>(&'a self, stream: &'a StreamName) -> Boxed<'a, bool>;
    fn claim_boxed<'a>(
        &'a self,
        consumer: &'a ConsumerKey,
        max: usize,
        visibility: Duration,
    ) -> Boxed<'a, Claimed>;
    fn settle_boxed<'a>(
        &'a self,
        group: &'a GroupKey,
        settlements: Arc<[Settlement]>,
    ) -> Boxed<'a, Vec<bool>>;
    fn extend_boxed<'a>(
        &'a self,
        group: &'a GroupKey,
        receipts: Arc<[Receipt]>,
        visibility: Duration,
    ) -> Boxed<'a, Vec<bool>>;
    fn ready_boxed(&self, groups: Arc<[GroupKey]>) -> Boxed<'_, Vec<bool>>;
    fn check_in_boxed(&self, consumers: Arc<[ConsumerKey]>, ttl: Duration) -> Boxed<'_, ()>;
    fn trim_boxed(&self) -> Boxed<'_, u64>;
    fn list_boxed<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Vec<StreamName>>;
    fn stats_boxed<'a>(&'a self, stream: &'a StreamName) -> Boxed<'a, StreamStats>;
    fn read_boxed<'a>(
        &'a self,
        stream: &'a StreamName,
        after: Option<MessageId>,
        max: usize,
    ) -> Boxed<'a, Vec<Message>>;
    fn pending_boxed<'a>(
        &'a self,
        group: &'a GroupKey,
        after: Option<MessageId>,
        max: usize,
    ) -> Boxed<'a, Vec<PendingMessage>>;
    fn members_boxed<'a>(&'a self, group: &'a GroupKey) -> Boxed<'a, Vec<Member>>;
    fn wakes_erased(&self) -> &Wakes;
}

impl<E: Engine> ErasedEngine for E {
    fn append_boxed<'a>(
        &'a self,
        stream: &'a StreamName,
        messages: Vec<NewMessage>,
        retention: Retention,
    ) -> Boxed<'a, Vec<MessageId>> {
        Box::pin(self.append(stream, messages, retention))
    }

    fn open_group_boxed<'a>(&'a self, group: &'a GroupKey, start: StartFrom) -> Boxed<'a, ()> {
        Box::pin(self.open_group(group, start))
    }

    fn seek_boxed<'a>(&'a self, group: &'a GroupKey, to: StartFrom) -> Boxed<'a, ()> {
        Box::pin(self.seek(group, to))
    }

    fn delete_group_boxed<'a>(&'a self, group: &'a GroupKey) -> Boxed<'a, bool> {
        Box::pin(self.delete_group(group))
    }

    fn delete_stream_boxed<'a>(&'a self, stream: &'a StreamName) -> Boxed<'a, bool> {
        Box::pin(self.delete_stream(stream))
    }

    fn claim_boxed<'a>(
        &'a self,
        consumer: &'a ConsumerKey,
        max: usize,
        visibility: Duration,
    ) -> Boxed<'a, Claimed> {
        Box::pin(self.claim(consumer, max, visibility))
    }

    fn settle_boxed<'a>(
        &'a self,
        group: &'a GroupKey,
        settlements: Arc<[Settlement]>,
    ) -> Boxed<'a, Vec<bool>> {
        Box::pin(self.settle(group, settlements))
    }

    fn extend_boxed<'a>(
        &'a self,
        group: &'a GroupKey,
        receipts: Arc<[Receipt]>,
        visibility: Duration,
    ) -> Boxed<'a, Vec<bool>> {
        Box::pin(self.extend(group, receipts, visibility))
    }

    fn ready_boxed(&self, groups: Arc<[GroupKey]>) -> Boxed<'_, Vec<bool>> {
        Box::pin(self.ready(groups))
    }

    fn check_in_boxed(&self, consumers: Arc<[ConsumerKey]>, ttl: Duration) -> Boxed<'_, ()> {
        Box::pin(self.check_in(consumers, ttl))
    }

    fn trim_boxed(&self) -> Boxed<'_, u64> {
        Box::pin(self.trim())
    }

    fn list_boxed<'a>(&'a self, prefix: &'a str) -> Boxed<'a, Vec<StreamName>> {
        Box::pin(self.list(prefix))
    }

    fn stats_boxed<'a>(&'a self, stream: &'a StreamName) -> Boxed<'a, StreamStats> {
        Box::pin(self.stats(stream))
    }

    fn read_boxed<'a>(
        &'a self,
        stream: &'a StreamName,
        after: Option<MessageId>,
        max: usize,
    ) -> Boxed<'a, Vec<Message>> {
        Box::pin(self.read(stream, after, max))
    }

    fn pending_boxed<'a>(
        &'a self,
        group: &'a GroupKey,
        after: Option<MessageId>,
        max: usize,
    ) -> Boxed<'a, Vec<PendingMessage>> {
        Box::pin(self.pending(group, after, max))
    }

    fn members_boxed<'a>(&'a self, group: &'a GroupKey) -> Boxed<'a, Vec<Member>> {
        Box::pin(self.members(group))
    }

    fn wakes_erased(&self) -> &Wakes {
        self.wakes()
    }
}
