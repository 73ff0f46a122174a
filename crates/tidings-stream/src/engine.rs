//! What a store has to do for streams, and nothing else: retries, dead letters, concurrency and
//! closing are decided once, above it.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

pub use crate::wake::Wakes;
use crate::{
    Error, GroupName, Headers, Message, MessageId, NewMessage, Retention, StartFrom, StreamName,
    StreamStats,
};

/// One consumer group of one stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupKey {
    /// The stream.
    pub stream: StreamName,
    /// The group's name in it.
    pub group: GroupName,
}

/// The proof of one claim of one message. A later claim of the same message makes it stale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Receipt {
    /// The message.
    pub id: MessageId,
    /// The number of the claim, never used twice in a group.
    pub claim: u64,
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
/// - **Groups** are durable. Creating one finds its place atomically against appends.
/// - **Claim** counts the attempt before it answers, so that a message that kills its process still
///   runs out of attempts. It hands a message to one claim at a time until its visibility timeout
///   passes. It gives the group's new messages in order of id.
/// - **Settle** does all of its work or none. It obeys a receipt while nobody else has claimed the
///   message, even a late one, and does nothing for a stale one. A move to a dead-letter stream
///   makes exactly one copy, whatever crashes.
/// - **Trim** removes from the old end only. A message that is gone while a group has yet to handle
///   it is counted as lost for that group, and never stops the group.
/// - **Claims, settlements and extensions need not survive a loss of power**: what is lost comes
///   again.
/// - **Wake-ups** follow the commit of whatever gives a group something to claim. They may be lost.
/// - **A dropped future** may or may not have done its work, and never half of it.
///
/// The functions of `conformance` (feature `conformance`) test an engine against this.
pub trait Engine: Send + Sync + 'static {
    /// Appends messages in order, creates the stream if need be, stores its retention and trims to
    /// it. Answers the id of the first message; the others follow without gaps. With no messages it
    /// does the rest, and answers the id that the next message will have.
    fn append(
        &self,
        stream: &StreamName,
        messages: Vec<NewMessage>,
        retention: Retention,
    ) -> impl Future<Output = Result<MessageId, Error>> + Send;

    /// Creates the group, and the stream, unless they exist.
    fn open_group(
        &self,
        group: &GroupKey,
        start: StartFrom,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// Deletes the group with everything it has pending; `false` when there is none.
    fn delete_group(&self, group: &GroupKey) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Claims up to `max` messages for `visibility`.
    fn claim(
        &self,
        group: &GroupKey,
        max: usize,
        visibility: Duration,
    ) -> impl Future<Output = Result<Claimed, Error>> + Send;

    /// Ends claims. Answers for each whether its receipt was obeyed; `false` is a stale one.
    fn settle(
        &self,
        group: &GroupKey,
        settlements: Arc<[Settlement]>,
    ) -> impl Future<Output = Result<Vec<bool>, Error>> + Send;

    /// Makes a claim last `visibility` from now; `false` when the receipt is stale.
    fn extend(
        &self,
        group: &GroupKey,
        receipt: Receipt,
        visibility: Duration,
    ) -> impl Future<Output = Result<bool, Error>> + Send;

    /// Trims every stream to its stored retention. Answers how many messages were removed.
    fn trim(&self) -> impl Future<Output = Result<u64, Error>> + Send;

    /// Figures of a stream and its groups; an unknown stream is an empty one.
    fn stats(&self, stream: &StreamName)
    -> impl Future<Output = Result<StreamStats, Error>> + Send;

    /// Where this engine's wake-ups arrive.
    fn wakes(&self) -> &Wakes;
}

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
    ) -> Result<MessageId, Error> {
        self.0.append_boxed(stream, messages, retention).await
    }

    async fn open_group(&self, group: &GroupKey, start: StartFrom) -> Result<(), Error> {
        self.0.open_group_boxed(group, start).await
    }

    async fn delete_group(&self, group: &GroupKey) -> Result<bool, Error> {
        self.0.delete_group_boxed(group).await
    }

    async fn claim(
        &self,
        group: &GroupKey,
        max: usize,
        visibility: Duration,
    ) -> Result<Claimed, Error> {
        self.0.claim_boxed(group, max, visibility).await
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
        receipt: Receipt,
        visibility: Duration,
    ) -> Result<bool, Error> {
        self.0.extend_boxed(group, receipt, visibility).await
    }

    async fn trim(&self) -> Result<u64, Error> {
        self.0.trim_boxed().await
    }

    async fn stats(&self, stream: &StreamName) -> Result<StreamStats, Error> {
        self.0.stats_boxed(stream).await
    }

    fn wakes(&self) -> &Wakes {
        self.0.wakes_erased()
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

trait ErasedEngine: Send + Sync {
    fn append_boxed<'a>(
        &'a self,
        stream: &'a StreamName,
        messages: Vec<NewMessage>,
        retention: Retention,
    ) -> Boxed<'a, MessageId>;
    fn open_group_boxed<'a>(&'a self, group: &'a GroupKey, start: StartFrom) -> Boxed<'a, ()>;
    fn delete_group_boxed<'a>(&'a self, group: &'a GroupKey) -> Boxed<'a, bool>;
    fn claim_boxed<'a>(
        &'a self,
        group: &'a GroupKey,
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
        receipt: Receipt,
        visibility: Duration,
    ) -> Boxed<'a, bool>;
    fn trim_boxed(&self) -> Boxed<'_, u64>;
    fn stats_boxed<'a>(&'a self, stream: &'a StreamName) -> Boxed<'a, StreamStats>;
    fn wakes_erased(&self) -> &Wakes;
}

impl<E: Engine> ErasedEngine for E {
    fn append_boxed<'a>(
        &'a self,
        stream: &'a StreamName,
        messages: Vec<NewMessage>,
        retention: Retention,
    ) -> Boxed<'a, MessageId> {
        Box::pin(self.append(stream, messages, retention))
    }

    fn open_group_boxed<'a>(&'a self, group: &'a GroupKey, start: StartFrom) -> Boxed<'a, ()> {
        Box::pin(self.open_group(group, start))
    }

    fn delete_group_boxed<'a>(&'a self, group: &'a GroupKey) -> Boxed<'a, bool> {
        Box::pin(self.delete_group(group))
    }

    fn claim_boxed<'a>(
        &'a self,
        group: &'a GroupKey,
        max: usize,
        visibility: Duration,
    ) -> Boxed<'a, Claimed> {
        Box::pin(self.claim(group, max, visibility))
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
        receipt: Receipt,
        visibility: Duration,
    ) -> Boxed<'a, bool> {
        Box::pin(self.extend(group, receipt, visibility))
    }

    fn trim_boxed(&self) -> Boxed<'_, u64> {
        Box::pin(self.trim())
    }

    fn stats_boxed<'a>(&'a self, stream: &'a StreamName) -> Boxed<'a, StreamStats> {
        Box::pin(self.stats(stream))
    }

    fn wakes_erased(&self) -> &Wakes {
        self.wakes()
    }
}
