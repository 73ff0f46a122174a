//! The contract of stores, and the stores.

#[cfg(feature = "import")]
pub mod import;
mod mark;
mod memory;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod message;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "postgres", feature = "sqlite"))]
mod retention;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod wakes;

use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::{
    Draft, Epoch, Event, EventId, InboxAction, InboxPage, InboxQuery, InboxUpdate, StoreError,
    UserId,
};

pub use mark::{ChangeMark, Changes, LogChange};
pub use memory::MemoryStore;
pub use wakes::{Wake, WakeChannel, WakeSender, Wakes};

/// Most bytes of payloads in a [`Page`], except when it has one event only: 256 KiB, so that what a
/// slow reader holds in memory stays small however large its events are.
pub const MAX_PAGE_BYTES: usize = 256 * 1024;

/// Most drafts of one [`append`](Store::append): while the store does it, the calls of others wait. A caller who has more makes
/// several calls, each of which is all or nothing.
pub const MAX_DRAFTS: usize = 10_000;

/// Keeps the log of every user: the events, their state in the inbox, and what was delivered. Used as
/// `Arc<dyn Store>`.
///
/// # Contract
///
/// - **One log per user**, created by the first append with a random [`Epoch`]. Its numbers are
///   dense (1, 2, 3 …), and an event is never visible before one with a smaller number: numbers are
///   assigned in the order of the commits.
/// - **All or nothing.** A call has its whole effect or none. When `append` returns `Ok`, the
///   events are as durable as the store is; the counters of the log are changed in the same
///   transaction. A store that cannot hold several users in one transaction, because they are on
///   several servers, must keep the rule for each user, and says in its documentation that after an
///   error some users may have their events. The stores of this package keep it for all users of a
///   call.
/// - **Read your writes.** A read that begins after a write has returned sees that write, on every
///   handle of every instance. A log that was rewound (restored from an older copy) is given
///   a new epoch where the store can see that; a reader ahead of its top gets a gap in any case.
/// - **Only the beginning is removed.** [`cleanup`](Self::cleanup), and a limit on the length if
///   the store has one, move `first_seq` forward; there are no holes. The log itself stays, so that
///   old cursors get a gap and not a new log.
/// - **Cancelled calls** may or may not have taken effect, as a whole.
/// - **A failed call** has had no effect, unless the error is [`StoreError::OutcomeUnknown`]: then it has
///   had its whole effect or none.
/// - After [`close`](Self::close) every call returns [`StoreError::Closed`], which means that nothing was done. One that
///   was begun before ends as it would have otherwise.
///
/// The feature `conformance` has these rules as functions to run on your own store.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Appends the drafts to the logs of their users, all or none, and returns one event for each,
    /// in the same order. Drafts for one user get rising numbers in that order. A draft with a key
    /// archives the user's earlier events with that key.
    ///
    /// Returns [`StoreError::TooMany`], and does nothing, if there are more than [`MAX_DRAFTS`].
    async fn append(&self, drafts: Vec<Draft>) -> Result<Vec<Event>, StoreError>;

    /// Reads at most `limit` events with a number above `after`, rising, and after the first of them
    /// at most [`MAX_PAGE_BYTES`] of payloads in all. A user without a log has an empty page of
    /// [`Epoch::NONE`].
    ///
    /// So a page shorter than `limit` need not be the last: the last page ends with
    /// [`Head::top_seq`].
    async fn read(&self, user: &UserId, after: u64, limit: usize) -> Result<Page, StoreError>;

    /// Returns where each user's log stands, in the order of the users: [`Head::EMPTY`] if there is
    /// none. One round trip, whatever the number of users.
    async fn heads(&self, users: &[UserId]) -> Result<Vec<Head>, StoreError>;

    /// Returns where one log stands.
    async fn head(&self, user: &UserId) -> Result<Head, StoreError> {
        let heads = self.heads(std::slice::from_ref(user)).await?;
        heads.first().copied().ok_or(StoreError::ContractBroken {
            rule: "heads returns one head for each user",
        })
    }

    /// Returns one event, or `None` if it does not exist or was removed.
    async fn find(&self, user: &UserId, id: EventId) -> Result<Option<Event>, StoreError>;

    /// Lists the inbox, newest first: at most what the query's limit allows, and after the first
    /// event at most [`MAX_INBOX_PAGE_BYTES`](crate::MAX_INBOX_PAGE_BYTES) of payloads in all.
    /// [`InboxPage::next`] is the cursor of the next page, whichever of the two limits ended this
    /// one.
    ///
    /// Returns [`StoreError::ForeignCursor`] if the query continues a page of another log.
    async fn inbox(&self, user: &UserId, query: &InboxQuery) -> Result<InboxPage, StoreError>;

    /// Changes the user's inbox at the time `at`. Events that are in the wanted state already keep
    /// their times. The counts are exact afterwards, and what is marked "up to" an event costs as much
    /// for a million events as for one.
    ///
    /// Returns [`StoreError::TooMany`], and does nothing, if the action names more than [`MAX_IDS`](crate::MAX_IDS) events.
    async fn change(
        &self,
        user: &UserId,
        action: &InboxAction,
        at: Timestamp,
    ) -> Result<InboxUpdate, StoreError>;

    /// Records how far users have been sent their events. A mark never moves back; a mark of another
    /// epoch, or beyond the top, is ignored. This need not survive a loss of power.
    async fn mark_delivered(&self, marks: Vec<(UserId, EventId)>) -> Result<(), StoreError>;

    /// Returns the cursor before the first event that is stamped at or after `time`, or the top if there
    /// is no such event. If that event was removed, it is the cursor before the oldest event that is kept,
    /// so that a reader gets a gap.
    ///
    /// All later events follow that one, whatever their timestamps.
    async fn cursor_before(&self, user: &UserId, time: Timestamp) -> Result<EventId, StoreError>;

    /// Returns the present mark, to continue from with [`changes`](Self::changes).
    async fn mark(&self) -> Result<ChangeMark, StoreError>;

    /// Lists logs whose events or inbox changed after `mark`, and the mark to continue from.
    ///
    /// A change must not be missed, also one that becomes visible after a later one: numbers that
    /// are drawn in a transaction are not marks, because transactions commit in another order. A log
    /// may be listed again. Several logs may have the same mark; a list that ends between them either
    /// exceeds the limit or continues between them. The cost depends on the number of changes only.
    async fn changes(&self, after: &ChangeMark, limit: usize) -> Result<Changes, StoreError>;

    /// Wake-ups from outside: a store with notifications of its own says which users' logs were
    /// changed, by whichever handle of whichever instance. They are only a hint, which may be lost or
    /// come twice. Without them, the sweep finds what other instances changed.
    fn wakes(&self) -> Option<Wakes> {
        None
    }

    /// Removes events that were stored before `cutoff`, and returns how many there were.
    ///
    /// The age of an event counts from the moment when it was stored, by the store's clock, which
    /// never goes back along a log. The event's own timestamp does not matter: an event that was
    /// accepted late, or is stamped in the future, is kept as long as any other.
    ///
    /// That clock is the server's for PostgreSQL and Redis, and the system's for the other stores. When
    /// it is set back, the next events of a log count as stored when its newest was: they are kept longer
    /// by as much, and none goes too early.
    ///
    /// Works in bounded steps, between which other calls are served. A cancelled or failed call has done some
    /// of them.
    async fn cleanup(&self, cutoff: Timestamp) -> Result<u64, StoreError>;

    /// Refuses all later calls. Closing twice is harmless. It may wait for calls that were begun.
    async fn close(&self);
}

/// Refuses more drafts than one append may have.
pub(crate) fn check_drafts(drafts: &[Draft]) -> Result<(), StoreError> {
    StoreError::check_count("drafts", drafts.len(), MAX_DRAFTS)
}

/// A stretch of a log, with where the log stood at the same instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Where the log stands; [`Head::EMPTY`] when there is no log.
    pub head: Head,
    /// The events, rising. More follow if the last is not the top.
    pub events: Vec<Event>,
}

impl Page {
    /// The page of a user without a log.
    pub fn empty() -> Self {
        Self {
            head: Head::EMPTY,
            events: Vec::new(),
        }
    }
}

/// Where a log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The incarnation of the log; [`Epoch::NONE`] when there is no log.
    pub epoch: Epoch,
    /// The number of the oldest event that is kept, or one above the top when none is.
    pub first_seq: u64,
    /// The number of the newest event; zero before the first.
    pub top_seq: u64,
    /// The number up to which events have been sent to any of the user's connections.
    pub delivered_seq: u64,
    /// How many events of the inbox are unread: kept, not read and not archived.
    pub unread: u64,
    /// How many of them are unseen: they came after what the user has seen.
    pub unseen: u64,
    /// Rises by one with every change of the inbox, and with every append of an event that has a
    /// key. Other appends leave it as it is.
    pub revision: u64,
}

impl Head {
    /// The head of a user without a log.
    pub const EMPTY: Self = Self {
        epoch: Epoch::NONE,
        first_seq: 1,
        top_seq: 0,
        delivered_seq: 0,
        unread: 0,
        unseen: 0,
        revision: 0,
    };

    /// The cursor of a reader who has everything; [`EventId::ORIGIN`] when there is no log.
    pub fn top(&self) -> EventId {
        EventId::new(self.epoch, self.top_seq)
    }

    /// The cursor before the oldest event that is kept.
    pub fn before_first(&self) -> EventId {
        EventId::new(self.epoch, self.first_seq.saturating_sub(1))
    }
}
