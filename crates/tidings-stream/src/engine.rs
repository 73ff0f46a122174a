//! What a store has to do for streams, and nothing else: retries, dead letters, concurrency and
//! closing are decided once, above it.

use std::sync::Arc;
use std::time::Duration;

pub use crate::wake::Wakes;
use crate::{
    Error, GroupName, Headers, Member, Message, MessageId, NewMessage, PendingMessage, Retention,
    StartFrom, StreamName, StreamStats,
};

mod erased;

pub use erased::DynEngine;
pub(crate) use erased::WeakEngine;

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
    /// The number of the claim, never used twice in a group, nor in a later one of the same name:
    /// a group's numbers begin with [`first_claim`].
    pub claim: u64,
}

/// A number for the first claim of a new group, drawn so that the receipts of a deleted group of the
/// same name fit none of its claims.
///
/// It is below 2^48, which leaves a group more claims than it can make, in every engine's numbers.
pub fn first_claim() -> u64 {
    fastrand::u64(1..1 << 48)
}

/// A message, claimed.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The message, with the number of this attempt.
    pub message: Message,
    /// What settles it.
    pub receipt: Receipt,
    /// What the handler of an earlier attempt said.
    pub last_error: Option<String>,
}

/// What [`Engine::claim`] found.
#[derive(Debug, Clone, Default)]
pub struct Claimed {
    /// The messages: those that come again first, then new ones in the order of their ids.
    pub deliveries: Vec<Delivery>,
    /// In how long the next message of the group is due to come again, if nobody settles it before;
    /// `None` when there is none. Zero means that there is more to claim now.
    pub next_due: Option<Duration>,
}

/// How the claim of a message ends.
#[derive(Debug, Clone)]
pub struct Settlement {
    /// Whose claim.
    pub receipt: Receipt,
    /// How it ends.
    pub outcome: Outcome,
}

/// What becomes of a claimed message.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// The group is done with it.
    Acknowledged,
    /// It comes again, with its attempt counted.
    Retry {
        /// Not before this long.
        delay: Duration,
        /// What the handler said.
        error: Option<String>,
    },
    /// It comes again at once, as if it had not been claimed.
    Released,
    /// It moves to another stream.
    Dead {
        /// The stream; created when it does not exist.
        to: StreamName,
        /// What the dead letter says about its death: see [`NewMessage::buried`].
        provenance: Headers,
    },
}

/// A store of streams.
///
/// Clones of an engine's handles, and calls, may run at the same time.
///
/// # Contract
///
/// - **Append** is atomic and durable: `Ok` means that all messages survive a crash, an error that
///   none exists. Ids of one stream are dense, and a reader that sees one has seen all before it.
///   A message whose [publish key](NewMessage::with_publish_key) was used within its window is not
///   appended again.
/// - **Groups** are durable. Creating or moving one finds its place atomically against appends.
/// - **Claim** counts the attempt before it answers, so that a message that kills its process still
///   runs out of attempts. It hands a message to one claim at a time until its visibility timeout
///   passes. It gives the group's new messages in order of id.
/// - **Settle** does all of its work or none. It obeys a receipt while nobody else has claimed the
///   message, even a late one, and does nothing for a stale one. A move to another stream makes
///   exactly one copy, whatever crashes.
/// - **Trim** removes from the old end only. A message that is gone while a group has yet to handle
///   it is counted as lost for that group, and never stops the group.
/// - **Claims, settlements, extensions and check-ins need not survive a loss of power**: what is
///   lost comes again.
/// - **Wake-ups** follow the commit of whatever gives a group something to claim. They may be lost.
/// - **A dropped future** may or may not have done its work, and never half of it.
///
/// The functions of `conformance` (feature `conformance`) test an engine against this.
pub trait Engine: Send + Sync + 'static {
    /// Appends messages in order, creates the stream if need be, stores its retention and trims to
    /// it. Answers the id of each message, which for a repeated publish key is that of the first
    /// one under the key; the others follow each other without gaps.
    fn append(
        &self,
        stream: &StreamName,
        messages: Vec<NewMessage>,
        retention: Retention,
    ) -> impl Future<Output = Result<Vec<MessageId>, Error>> + Send;

    /// Creates the group, and the stream, unless they exist.
    fn open_group(
        &self,
        group: &GroupKey,
        start: StartFrom,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Moves a group to another position, as if it had been created there, and drops what it has
    /// pending: every receipt of it is stale from then on.
    fn seek(
        &self,
        group: &GroupKey,
        to: StartFrom,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Deletes the group with everything it has pending; `false` when there is none.
    fn delete_group(&self, group: &GroupKey) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Deletes a stream with its messages, groups and publish keys; `false` when there is none.
    fn delete_stream(
        &self,
        stream: &StreamName,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Claims up to `max` messages for `visibility`, in the name of a consumer.
    fn claim(
        &self,
        consumer: &ConsumerKey,
        max: usize,
        visibility: Duration,
    ) -> impl Future<Output = Result<Claimed, Error>> + Send;

    /// Ends claims. Answers for each whether its receipt was obeyed; `false` is a stale one.
    fn settle(
        &self,
        group: &GroupKey,
        settlements: Arc<[Settlement]>,
    ) -> impl Future<Output = Result<Vec<bool>, Error>> + Send;

    /// Makes claims last `visibility` from now, at least. Answers for each whether its receipt was
    /// obeyed; `false` is a stale one.
    fn extend(
        &self,
        group: &GroupKey,
        receipts: Arc<[Receipt]>,
        visibility: Duration,
    ) -> impl Future<Output = Result<Vec<bool>, Error>> + Send;

    /// Tells of each group whether a claim would find something now, without changing anything.
    /// `true` for one that does not exist: its claim will say so.
    ///
    /// This is what polling costs: one call for all consumers of a process that wait, whose work
    /// does not grow with the length of any stream.
    fn ready(
        &self,
        groups: Arc<[GroupKey]>,
    ) -> impl Future<Output = Result<Vec<bool>, Error>> + Send;

    /// Notes that these consumers will be alive for `ttl` from now; zero means that they have gone.
    /// Ignores those of groups that do not exist.
    fn check_in(
        &self,
        consumers: Arc<[ConsumerKey]>,
        ttl: Duration,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Trims every stream to its stored retention, and forgets what has expired. Answers how many
    /// messages were removed.
    fn trim(&self) -> impl Future<Output = Result<u64, Error>> + Send;

    /// The streams whose full names begin with `prefix`, in the order of their names.
    fn list(&self, prefix: &str) -> impl Future<Output = Result<Vec<StreamName>, Error>> + Send;

    /// Figures of a stream and its groups; an unknown stream is an empty one.
    fn stats(&self, stream: &StreamName)
    -> impl Future<Output = Result<StreamStats, Error>> + Send;

    /// Up to `max` messages of a stream from the first one after `after` on, fewer where they are
    /// large; none for an unknown stream. Their attempt is 0: no group is asked.
    fn read(
        &self,
        stream: &StreamName,
        after: Option<MessageId>,
        max: usize,
    ) -> impl Future<Output = Result<Vec<Message>, Error>> + Send;

    /// Up to `max` pending messages of a group, in the order of their ids, from the first one after
    /// `after` on.
    fn pending(
        &self,
        group: &GroupKey,
        after: Option<MessageId>,
        max: usize,
    ) -> impl Future<Output = Result<Vec<PendingMessage>, Error>> + Send;

    /// The consumers of a group that are alive or hold a claim, in the order of their names.
    fn members(&self, group: &GroupKey) -> impl Future<Output = Result<Vec<Member>, Error>> + Send;

    /// Where this engine's wake-ups arrive.
    fn wakes(&self) -> &Wakes;
}
