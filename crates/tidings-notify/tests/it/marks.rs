//! The suite accepts marks that are right and refuses marks that only look so.
//!
//! On an engine with concurrent writers, numbers become visible in another order than they are drawn
//! in. [`Concurrent`] is a model of one: a transaction draws its number when it begins to write, and
//! is seen when it commits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use jiff::Timestamp;
use tidings_notify::conformance::{self, OpenTransaction, Subject, Transactions};
use tidings_notify::{
    ChangeMark, Changes, Draft, Event, EventId, Head, InboxAction, InboxPage, InboxQuery,
    InboxUpdate, LogChange, MemoryStore, Page, Store, StoreError, UserId, store_conformance,
};

/// What a mark is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbering {
    /// The number below which all transactions have ended, so that logs are listed again.
    Horizon,
    /// The greatest number that is visible.
    Sequence,
}

#[derive(Debug, Clone)]
struct Concurrent {
    inner: MemoryStore,
    numbering: Numbering,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    drawn: u64,
    /// Which transactions run, and who changed in those that are committed.
    transactions: BTreeMap<u64, Option<Vec<UserId>>>,
}

impl Concurrent {
    fn new(numbering: Numbering) -> Self {
        Self {
            inner: MemoryStore::new(),
            numbering,
            state: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn begin(&self) -> u64 {
        let mut state = self.state();
        state.drawn += 1;
        let number = state.drawn;
        state.transactions.insert(number, None);
        number
    }

    fn commit(&self, number: u64, users: Vec<UserId>) {
        self.state().transactions.insert(number, Some(users));
    }

    fn mark(&self, state: &State) -> u64 {
        let is_open = |(number, users): (&u64, &Option<_>)| users.is_none().then_some(*number);
        match self.numbering {
            Numbering::Horizon => {
                let open = state.transactions.iter().find_map(is_open);
                open.map_or(state.drawn, |oldest| oldest - 1)
            }
            Numbering::Sequence => {
                let mut committed = state
                    .transactions
                    .iter()
                    .filter(|(_, users)| users.is_some());
                committed.next_back().map_or(0, |(number, _)| *number)
            }
        }
    }

    fn subject(self) -> Subject {
        Subject::new(self.clone())
            .with_second_handle(self.clone())
            .with_transactions(self)
    }
}

struct Open {
    store: Concurrent,
    number: u64,
    drafts: Vec<Draft>,
}

#[async_trait]
impl Transactions for Concurrent {
    async fn append(&self, drafts: Vec<Draft>) -> Box<dyn OpenTransaction> {
        Box::new(Open {
            number: self.begin(),
            store: self.clone(),
            drafts,
        })
    }
}

#[async_trait]
impl OpenTransaction for Open {
    async fn commit(self: Box<Self>) {
        let users = self.drafts.iter().map(|draft| draft.user().clone());
        let users = users.collect();
        self.store.inner.append(self.drafts).await.unwrap();
        self.store.commit(self.number, users);
    }

    async fn roll_back(self: Box<Self>) {
        self.store.commit(self.number, Vec::new());
    }
}

#[async_trait]
impl Store for Concurrent {
    async fn append(&self, drafts: Vec<Draft>) -> Result<Vec<Event>, StoreError> {
        let number = self.begin();
        let users = drafts.iter().map(|draft| draft.user().clone()).collect();
        let appended = self.inner.append(drafts).await;
        self.commit(number, users);
        appended
    }

    async fn read(&self, user: &UserId, after: u64, limit: usize) -> Result<Page, StoreError> {
        self.inner.read(user, after, limit).await
    }

    async fn heads(&self, users: &[UserId]) -> Result<Vec<Head>, StoreError> {
        self.inner.heads(users).await
    }

    async fn find(&self, user: &UserId, id: EventId) -> Result<Option<Event>, StoreError> {
        self.inner.find(user, id).await
    }

    async fn inbox(&self, user: &UserId, query: &InboxQuery) -> Result<InboxPage, StoreError> {
        self.inner.inbox(user, query).await
    }

    async fn change(
        &self,
        user: &UserId,
        action: &InboxAction,
        at: Timestamp,
    ) -> Result<InboxUpdate, StoreError> {
        let number = self.begin();
        let update = self.inner.change(user, action, at).await;
        let changed = update.as_ref().is_ok_and(|update| update.changed > 0);
        self.commit(number, changed.then(|| user.clone()).into_iter().collect());
        update
    }

    async fn mark_delivered(&self, marks: Vec<(UserId, EventId)>) -> Result<(), StoreError> {
        self.inner.mark_delivered(marks).await
    }

    async fn cursor_before(&self, user: &UserId, time: Timestamp) -> Result<EventId, StoreError> {
        self.inner.cursor_before(user, time).await
    }

    async fn mark(&self) -> Result<ChangeMark, StoreError> {
        self.inner.mark().await?;
        Ok(ChangeMark::from_u64(self.mark(&self.state())))
    }

    /// Exceeds the limit by whatever changed in one transaction.
    async fn changes(&self, after: &ChangeMark, limit: usize) -> Result<Changes, StoreError> {
        self.inner.mark().await?;
        let (mut mark, mut more, mut users) = (None, false, Vec::new());
        let rewound = after.as_u64().is_none();
        {
            let state = self.state();
            let horizon = self.mark(&state);
            for (number, changed) in state.transactions.range(after.as_u64().unwrap_or(0) + 1..) {
                if users.len() >= limit && *number <= horizon {
                    more = true;
                    break;
                }
                users.extend(changed.iter().flatten().cloned());
                mark = Some((*number).min(horizon));
            }
            mark = if more { mark } else { Some(horizon) };
        }
        let heads = self.inner.heads(&users).await?;
        let logs = users.into_iter().zip(heads);
        Ok(Changes {
            mark: ChangeMark::from_u64(mark.unwrap_or(0)),
            logs: logs.map(|(user, head)| LogChange { user, head }).collect(),
            more,
            rewound,
        })
    }

    async fn cleanup(&self, cutoff: Timestamp) -> Result<u64, StoreError> {
        let number = self.begin();
        let removed = self.inner.cleanup(cutoff).await;
        let users = vec![UserId::new("ann").unwrap()];
        self.commit(number, users);
        removed
    }

    async fn close(&self) {
        self.inner.close().await;
    }
}

store_conformance!(horizon, Concurrent::new(Numbering::Horizon).subject());

#[tokio::test]
#[should_panic(expected = "committed late")]
async fn a_plain_sequence_is_refused() {
    let subject = Concurrent::new(Numbering::Sequence).subject();
    conformance::changes_that_commit_late_are_listed(&subject).await;
}
