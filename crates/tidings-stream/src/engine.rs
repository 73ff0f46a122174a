//! What a store has to do for streams, and nothing else: retries, dead letters, concurrency and
//! closing are decided once, above it.
//!
//! Engine folders repeat file names: `append`, `claim`, `settle`, `content`, `stats`, `failure`, and
//! `listen` where wake-ups come over a connection.
//!
//! # Messages that cannot be read
//!
//! PostgreSQL and Redis claim messages before they read them. A claim whose messages cannot be read is
//! handed back without counting an attempt, and the next one takes half as many. A message that cannot
//! even be read alone, because the connection is too slow for it or its row or entry is broken, is held
//! back with a line in the log, for a second at first and up to about an hour later, while later messages
//! continue. It is never dead-lettered for that: no handler has seen it, and a server that is slow for a
//! while looks the same.
//!
//! SQLite holds such a message back in the same way.

use std::collections::BTreeSet;
use std::fmt;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{
    Error, GroupName, Headers, Member, Message, MessageId, NewMessage, PendingMessage, Retention,
    StartFrom, StreamName, StreamStats,
};

#[cfg(any(test, feature = "postgres", feature = "redis"))]
mod group_commit;
#[cfg(feature = "import")]
pub mod import;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod lost_claims;
pub(crate) mod memory;
#[cfg(any(feature = "postgres", feature = "redis"))]
mod numbering;
mod place;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "redis")]
pub mod redis;
mod settled_bits;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
mod stored;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
pub(crate) mod time;
#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
mod trim_round;
pub(crate) mod wake;

pub use wake::Wakes;

/// One consumer group of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    /// The stream.
    pub stream: StreamName,
    /// The group's name in it.
    pub group: GroupName,
}

/// One consumer of one group.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ConsumerKey {
    /// The group it is a member of.
    pub group: GroupKey,
    /// Its name, which no other consumer has: [`Consumer::id`](crate::Consumer::id).
    pub consumer: Arc<str>,
}

/// The proof of one claim of one message. A later claim of the same message makes it stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// The message.
    pub id: MessageId,
    /// The number of the claim. It is never used twice, neither in a group nor in a later group
    /// of the same name, because a group's numbers begin with [`first_claim`].
    pub claim: u64,
}

/// The group that remembers which dead letters were brought back. It is the only group that does not
/// keep messages from being trimmed: it would keep every letter from its first use on.
pub const REDRIVE_GROUP: &str = "tidings.redrive";

/// Draws the number of the first claim of a new group. It is random, so that receipts of a deleted
/// group of the same name fit no claim of the new one.
///
/// It is below 2^48, which leaves a group more claims than it can make, in every engine's numbers.
pub fn first_claim() -> u64 {
    fastrand::u64(1..1 << 48)
}

/// A message, claimed.
#[derive(Debug, Clone)]
pub struct ClaimedMessage {
    /// The message, with the number of this attempt.
    pub message: Message,
    /// The proof of the claim, which settles it.
    pub receipt: Receipt,
    /// The error of an earlier attempt.
    pub last_error: Option<String>,
}

#[cfg(any(feature = "sqlite", feature = "postgres", feature = "redis"))]
impl ClaimedMessage {
    /// A message that a claim has taken for an attempt.
    fn new(mut message: Message, attempt: u32, claim: u64, last_error: Option<String>) -> Self {
        message.attempt = attempt;
        Self {
            receipt: Receipt {
                id: message.id,
                claim,
            },
            message,
            last_error,
        }
    }
}

/// How an [`Engine::claim`] goes. A [`Duration`] alone makes one without order and bound.
#[derive(Debug, Clone, Copy)]
pub struct ClaimOptions {
    /// How long the claim lasts, unless it is extended.
    pub visibility: Duration,
    /// Whether a message waits for earlier ones of its [ordering key](NewMessage::with_ordering_key) that the
    /// group has not finished.
    pub in_key_order: bool,
    /// Most messages that the group has claimed at a time, by this claim and others that last.
    pub max_in_flight: Option<NonZeroU32>,
}

impl From<Duration> for ClaimOptions {
    fn from(visibility: Duration) -> Self {
        Self {
            visibility,
            in_key_order: false,
            max_in_flight: None,
        }
    }
}

/// Most messages that one claim passes over because they wait for earlier ones of their ordering keys. The
/// next claim begins after them: each is passed over once.
pub(crate) const MAX_HELD_BACK: usize = 500;

/// What [`Engine::claim`] found.
#[derive(Debug, Clone, Default)]
pub struct Claimed {
    /// The messages: redelivered ones first, then new ones in the order of their ids.
    pub messages: Vec<ClaimedMessage>,
    /// The time until the next message of the group is due again, unless it is settled before;
    /// `None` if there is none. Zero means that there is more to claim now.
    pub next_due: Option<Duration>,
}

/// How the claim of a message ends.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Which claim.
    pub receipt: Receipt,
    /// How it ends.
    pub outcome: Outcome,
}

/// What settling did.
#[derive(Debug, Default)]
struct Settled {
    /// For each settlement, whether its receipt was obeyed.
    obeyed: Vec<bool>,
    /// Whether messages can be claimed that waited for their ordering keys.
    has_freed: bool,
}

impl Settled {
    /// The streams that have something to claim since then.
    fn wakes<'a>(
        &self,
        group: &'a GroupKey,
        settlements: &'a [Settlement],
    ) -> BTreeSet<&'a StreamName> {
        let obeyed = settlements.iter().zip(&self.obeyed);
        let wakes = obeyed.filter_map(|(settlement, obeyed)| match &settlement.outcome {
            Outcome::Retry { .. } | Outcome::Released if *obeyed => Some(&group.stream),
            Outcome::Dead { to, .. } if *obeyed => Some(to),
            _ => None,
        });
        let freed = self.has_freed.then_some(&group.stream);
        wakes.chain(freed).collect()
    }
}

/// The bounds of a page as a database takes them: the number that it begins after, and how many
/// messages it has at most.
#[cfg(any(feature = "sqlite", feature = "postgres"))]
fn page(after: Option<MessageId>, max: usize) -> (i64, i64) {
    let after = i64::try_from(after.map_or(0, MessageId::as_u64));
    let max = i64::try_from(max);
    (after.unwrap_or(i64::MAX), max.unwrap_or(i64::MAX))
}

/// What becomes of a claimed message.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The group is done with it.
    Acknowledged,
    /// It is delivered again, with this attempt counted.
    Retry {
        /// The shortest time until then.
        delay: Duration,
        /// The error of the handler.
        error: Option<String>,
    },
    /// It is delivered again at once, as if it had not been claimed.
    Released,
    /// It moves to another stream.
    Dead {
        /// The stream, which is created if it does not exist.
        to: StreamName,
        /// The headers that say why it died: see [`NewMessage::buried`].
        provenance: Headers,
    },
}

/// A store of streams.
///
/// Calls may run at the same time, through one handle or several.
///
/// # Contract
///
/// - **Append** is atomic and durable: `Ok` means that all messages survive a crash, an error that
///   none exists, except [`Error::OutcomeUnknown`], which means that all do or none. Ids of one stream are dense, and a reader that sees one has seen all before it.
///   A message whose [publish key](NewMessage::with_publish_key) was used within its window is not
///   appended again.
/// - **Groups** are durable. Creating or moving one finds its place atomically against appends.
/// - **Claim** counts the attempt before it returns, so that a message that kills its process still
///   runs out of attempts. A message belongs to one claim at a time, until its visibility timeout
///   passes. New messages are claimed in the order of their ids. A claim that fails has claimed
///   nothing, or hands back what it has claimed with the attempt not counted. A message that cannot be read
///   stops no other for long.
/// - **Ordering keys**: a claim in their order takes no message while an earlier one of its key, that such
///   a claim has met, is claimed or waits for an attempt. The message waits as one with no attempt, and may
///   be claimed when that one is acknowledged, dead or removed. What a claim costs does not grow with what
///   waits.
/// - **Settle** does all of its work or none. It obeys a receipt, even a late one, until another
///   claim takes the message, and does nothing for a stale one. A move to another stream makes
///   exactly one copy, whatever crashes, and as durably as an append.
/// - **Trim** removes from the old end only. A message that is removed before a group has handled
///   it is counted as lost for that group, and never stops the group: when it is removed, or, if a
///   consumer has it or the group is busy at that moment, when it would be claimed next. Messages
///   that were removed by other means are counted and skipped as well.
/// - **Claims, extensions, check-ins, and settlements that move nothing to another stream need not survive a
///   loss of power**: what is lost comes again.
/// - **Wake-ups** follow the commit that gives a group something to claim. They may be lost.
/// - **A dropped future** may or may not have done its work, and never half of it.
///
/// The functions of `conformance` (feature `conformance`) test an engine against this.
#[async_trait]
pub trait Engine: fmt::Debug + Send + Sync + 'static {
    /// Appends messages in order, creates the stream if need be, stores its retention if there is
    /// one, and trims to what is stored. Returns the id of each message. For a repeated publish key that is the id of the first
    /// message under the key; the other ids follow each other without gaps.
    async fn append(
        &self,
        stream: &StreamName,
        messages: Vec<NewMessage>,
        retention: Option<Retention>,
    ) -> Result<Vec<MessageId>, Error>;

    /// Stores the retention of a stream, creates the stream if need be, and trims to it.
    async fn set_retention(&self, stream: &StreamName, retention: Retention) -> Result<(), Error>;

    /// Creates the group, and the stream, unless they exist.
    async fn open_group(&self, group: &GroupKey, start: StartFrom) -> Result<(), Error>;

    /// Moves a group to another position, as if it had been created there, and drops what it has
    /// pending: every receipt of it is stale from then on.
    async fn seek(&self, group: &GroupKey, to: StartFrom) -> Result<(), Error>;

    /// Deletes the group with everything it has pending. Returns `false` if there is none.
    async fn delete_group(&self, group: &GroupKey) -> Result<bool, Error>;

    /// Deletes a message and keeps its number and its publish key. Returns `false` if there is none. Groups
    /// that have yet to handle it skip it and count it as lost; one that waits for an attempt or for its
    /// ordering key is due at once for that.
    async fn delete_message(&self, stream: &StreamName, id: MessageId) -> Result<bool, Error>;

    /// Deletes a stream with its messages, groups and publish keys. Returns `false` if there is none.
    async fn delete_stream(&self, stream: &StreamName) -> Result<bool, Error>;

    /// Claims up to `max` messages in the name of a consumer.
    async fn claim(
        &self,
        consumer: &ConsumerKey,
        max: usize,
        options: ClaimOptions,
    ) -> Result<Claimed, Error>;

    /// The file that its commits go to, if that is one which other stores may share. What these commit there before a
    /// message is acknowledged is not lost without the acknowledgement, also if neither waits for the disk.
    fn file(&self) -> Option<&Path> {
        None
    }

    /// Whether handlers can settle in transactions of their own, by a function such as `sqlite::settle_in`. Without it
    /// a message does not carry its claim.
    fn settles_in_transactions(&self) -> bool {
        true
    }

    /// Ends claims. Returns for each whether its receipt was obeyed; `false` means that it is stale, or that a
    /// message is gone that was to move to another stream.
    async fn settle(
        &self,
        group: &GroupKey,
        settlements: Arc<[Settlement]>,
    ) -> Result<Vec<bool>, Error>;

    /// Makes claims last for at least `visibility` from now. Returns for each whether its receipt
    /// was obeyed; `false` means that it is stale.
    async fn extend(
        &self,
        group: &GroupKey,
        receipts: Arc<[Receipt]>,
        visibility: Duration,
    ) -> Result<Vec<bool>, Error>;

    /// Returns for each group whether a claim would find something now, and changes nothing. It
    /// is `true` for a group that does not exist, so that a claim reports the error.
    ///
    /// This is what polling costs: one call for all consumers of a process that wait, whose work
    /// does not grow with the length of any stream.
    async fn ready(&self, groups: Arc<[GroupKey]>) -> Result<Vec<bool>, Error>;

    /// Records that these consumers are alive for `ttl` from now; zero means that they have left.
    /// Consumers of groups that do not exist are ignored.
    async fn check_in(&self, consumers: Arc<[ConsumerKey]>, ttl: Duration) -> Result<(), Error>;

    /// Trims every stream to its stored retention, and removes expired publish keys and members.
    /// Returns how many messages were removed.
    async fn trim(&self) -> Result<u64, Error>;

    /// The streams whose full names begin with `prefix`, in the order of their names.
    async fn list(&self, prefix: &str) -> Result<Vec<StreamName>, Error>;

    /// Figures of a stream and its groups; an unknown stream is an empty one.
    async fn stats(&self, stream: &StreamName) -> Result<StreamStats, Error>;

    /// Up to `max` messages of a stream, beginning with the first one after `after`; fewer if they
    /// are large or many, none for an unknown stream. Their attempt is 0, because no group claims them.
    async fn read(
        &self,
        stream: &StreamName,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<Message>, Error>;

    /// Up to `max` pending messages of a group, in the order of their ids, beginning with the first
    /// one after `after`.
    async fn pending(
        &self,
        group: &GroupKey,
        after: Option<MessageId>,
        max: usize,
    ) -> Result<Vec<PendingMessage>, Error>;

    /// The consumers of a group that are alive or hold a claim, in the order of their names.
    async fn members(&self, group: &GroupKey) -> Result<Vec<Member>, Error>;

    /// The wake-ups of this engine.
    fn wakes(&self) -> &Wakes;

    /// Says that a transaction of the caller's own has committed messages of a stream.
    fn wake(&self, stream: &StreamName) {
        self.wakes().wake(stream);
    }
}
