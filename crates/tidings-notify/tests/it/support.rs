//! What the tests share.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tidings_notify::presence::{Registration, Tracker, TrackerOptions};
use tidings_notify::sqlite::{SqliteOptions, SqliteStore};
use tidings_notify::{
    ChangeMark, Changes, Draft, Event, EventId, EventType, Head, InboxAction, InboxPage,
    InboxQuery, InboxUpdate, Item, MemoryPresence, MemoryStore, Notifier, NotifierBuilder, Page,
    Payload, Presence, RoutingInfo, Store, StoreError, Subscription, UserId, Wake, WakeSender,
    Wakes,
};
use tidings_sqlite::{Database, Options};
use tokio::sync::Semaphore;

/// A poll interval that no test lives to see: what arrives, arrives without a sweep.
pub(crate) const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

pub(crate) fn ann() -> UserId {
    user("ann")
}

/// A draft for `ann` with a payload of so many bytes.
pub(crate) fn draft_of_size(bytes: usize) -> Draft {
    Draft::new(
        ann(),
        EventType::new("test.large").unwrap(),
        Payload::parse(&"1".repeat(bytes)).unwrap(),
    )
}

/// A draft for `ann` that carries a number.
pub(crate) fn draft(number: u64) -> Draft {
    Draft::new(
        ann(),
        EventType::new("test.number").unwrap(),
        Payload::from_value(&number).unwrap(),
    )
}

pub(crate) fn number(event: &Event) -> u64 {
    event.payload.as_str().parse().unwrap()
}

/// A notifier that never sweeps after its first look.
pub(crate) fn without_sweep(store: impl Store) -> NotifierBuilder {
    Notifier::builder(Arc::new(store)).poll_interval(NEVER)
}

/// Lets notifiers that were just built look once where their stores stand, which are in memory: in the midst of a
/// test, that look would find what something else is to find.
pub(crate) async fn first_sweep() {
    tokio::task::yield_now().await;
}

/// A presence of its own.
pub(crate) fn presence() -> Arc<dyn Presence> {
    Arc::new(MemoryPresence::default())
}

pub(crate) fn place(instance: &str) -> RoutingInfo {
    RoutingInfo {
        instance_id: instance.to_owned(),
        metadata: BTreeMap::from([("url".to_owned(), format!("http://{instance}/"))]),
    }
}

/// A connection of a user to an instance that has no other.
pub(crate) async fn connect(
    presence: &Arc<dyn Presence>,
    user: UserId,
    instance: &str,
) -> (Tracker, Registration) {
    let options = TrackerOptions::default();
    let tracker = Tracker::join(presence.clone(), place(instance), options).unwrap();
    let connection = tracker.register(user).unwrap();
    connection.stored().await.unwrap();
    (tracker, connection)
}

pub(crate) async fn push_numbers(notifier: &Notifier, numbers: std::ops::Range<u64>) -> Vec<Event> {
    let mut events = Vec::new();
    for number in numbers {
        events.push(notifier.push(draft(number)).await.unwrap());
    }
    events
}

/// The numbers of the next events, whatever else the stream gives in between.
pub(crate) async fn numbers(stream: &mut Subscription, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        if let Item::Event(event) = stream.next().await.unwrap() {
            numbers.push(number(&event));
        }
    }
    numbers
}

/// What the stream gives without waiting, as long as it gives something.
pub(crate) fn items_at_hand(stream: &mut Subscription) -> Vec<Item> {
    let mut items = Vec::new();
    loop {
        // Polled once: on a memory store whatever can come is there at once.
        let mut context = Context::from_waker(Waker::noop());
        match pin!(stream.next()).poll(&mut context) {
            Poll::Ready(Ok(item)) => items.push(item),
            Poll::Ready(Err(_)) | Poll::Pending => return items,
        }
    }
}

pub(crate) fn event_numbers(items: &[Item]) -> Vec<u64> {
    let events = items.iter().filter_map(|item| match item {
        Item::Event(event) => Some(number(event)),
        _ => None,
    });
    events.collect()
}

pub(crate) fn open_sqlite(folder: &tempfile::TempDir) -> Database {
    Database::open(folder.path().join("notify.db"), &Options::default()).unwrap()
}

pub(crate) async fn fresh_sqlite() -> (SqliteStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(open_sqlite(&folder), SqliteOptions::default())
        .await
        .unwrap();
    (store, folder)
}

/// A store, in memory unless it is around another, that counts its calls, holds reads back and fails on demand.
#[derive(Debug, Clone)]
pub(crate) struct Observed {
    pub(crate) inner: Arc<dyn Store>,
    pub(crate) calls: Arc<AtomicU64>,
    pub(crate) is_broken: Arc<AtomicBool>,
    /// What a read of a log needs to pass.
    pub(crate) gate: Arc<Semaphore>,
    /// Through which a test wakes, if the store can wake.
    pub(crate) wakes: Option<WakeSender>,
    /// Whose log cannot be read.
    pub(crate) unreadable: Arc<Mutex<Option<UserId>>>,
    /// The next call panics.
    pub(crate) panics: Arc<AtomicBool>,
}

impl Default for Observed {
    fn default() -> Self {
        Self {
            inner: Arc::new(MemoryStore::new()),
            calls: Arc::default(),
            is_broken: Arc::default(),
            gate: Arc::new(Semaphore::new(1)),
            wakes: Some(WakeSender::new(4)),
            unreadable: Arc::default(),
            panics: Arc::default(),
        }
    }
}

impl Observed {
    /// One that never wakes, around another store.
    pub(crate) fn silent(inner: Arc<dyn Store>) -> Self {
        Self {
            inner,
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            wakes: None,
            ..Self::default()
        }
    }

    pub(crate) fn wake(&self, wake: Wake) {
        self.wakes.as_ref().expect("it can wake").send(wake);
    }

    fn call(&self) -> Result<&dyn Store, StoreError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        assert!(
            !self.panics.swap(false, Ordering::SeqCst),
            "the test wants it"
        );
        if self.is_broken.load(Ordering::SeqCst) {
            Err(StoreError::backend("the disk is on fire"))
        } else {
            Ok(&*self.inner)
        }
    }
}

#[async_trait]
impl Store for Observed {
    async fn append(&self, drafts: Vec<Draft>) -> Result<Vec<Event>, StoreError> {
        self.call()?.append(drafts).await
    }

    async fn read(&self, user: &UserId, after: u64, limit: usize) -> Result<Page, StoreError> {
        let store = self.call()?;
        let _passed = self.gate.acquire().await.map_err(StoreError::backend)?;
        if self.unreadable.lock().unwrap().as_ref() == Some(user) {
            return Err(StoreError::backend("the page is torn"));
        }
        store.read(user, after, limit).await
    }

    async fn heads(&self, users: &[UserId]) -> Result<Vec<Head>, StoreError> {
        self.call()?.heads(users).await
    }

    async fn find(&self, user: &UserId, id: EventId) -> Result<Option<Event>, StoreError> {
        self.call()?.find(user, id).await
    }

    async fn inbox(&self, user: &UserId, query: &InboxQuery) -> Result<InboxPage, StoreError> {
        self.call()?.inbox(user, query).await
    }

    async fn change(
        &self,
        user: &UserId,
        action: &InboxAction,
        at: Timestamp,
    ) -> Result<InboxUpdate, StoreError> {
        self.call()?.change(user, action, at).await
    }

    async fn mark_delivered(&self, marks: Vec<(UserId, EventId)>) -> Result<(), StoreError> {
        self.call()?.mark_delivered(marks).await
    }

    async fn cursor_before(&self, user: &UserId, time: Timestamp) -> Result<EventId, StoreError> {
        self.call()?.cursor_before(user, time).await
    }

    async fn mark(&self) -> Result<ChangeMark, StoreError> {
        self.call()?.mark().await
    }

    async fn changes(&self, after: &ChangeMark, limit: usize) -> Result<Changes, StoreError> {
        self.call()?.changes(after, limit).await
    }

    fn wakes(&self) -> Option<Wakes> {
        self.wakes.as_ref().map(WakeSender::receiver)
    }

    async fn cleanup(&self, cutoff: Timestamp) -> Result<u64, StoreError> {
        self.call()?.cleanup(cutoff).await
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}
