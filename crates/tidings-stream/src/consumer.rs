use std::fmt;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::consumer::outage::{Outages, Part};
use crate::engine::{ConsumerKey, Engine, GroupKey};
use crate::telemetry::GroupTelemetry;
use crate::{Error, Message, MessageId, StreamName, SubscribeOptions};

mod attempt;
pub(crate) mod batch_handler;
mod dispatch;
pub(crate) mod handler;
pub(crate) mod in_hand;
pub(crate) mod janitor;
pub(crate) mod outage;
pub(crate) mod overdue;
pub(crate) mod poller;
pub(crate) mod pull;
mod settler;
mod time_limit;

pub(crate) use dispatch::run;

/// A running subscription.
///
/// Dropping it begins the same closing as [`close`](Self::close), whose report is lost.
#[must_use = "dropping a consumer closes it"]
pub struct Consumer {
    subscription: Arc<Subscription>,
    ended: watch::Receiver<Option<Ended>>,
    /// Ends the subscription with the handle.
    _closing: DropGuard,
    /// Keeps the janitor running for as long as there are consumers.
    _streams: Arc<dyn Send + Sync>,
}

impl Consumer {
    pub(crate) fn new(
        subscription: Arc<Subscription>,
        ended: watch::Receiver<Option<Ended>>,
        streams: Arc<dyn Send + Sync>,
    ) -> Self {
        let closing = CancellationToken::clone(&subscription.closing).drop_guard();
        Self {
            subscription,
            ended,
            _closing: closing,
            _streams: streams,
        }
    }

    /// A name that no other subscription has, in this process or another. Dead letters carry it.
    pub fn id(&self) -> &str {
        &self.subscription.consumer.consumer
    }

    /// What this consumer has done so far.
    pub fn stats(&self) -> ConsumerStats {
        *self.subscription.stats.lock()
    }

    /// Stops claiming until [`resume`](Self::resume), in this consumer alone: others of its group go
    /// on. Running handlers finish, and closing works as usual. A claim that is under way may still
    /// bring messages.
    pub fn pause(&self) {
        self.subscription.paused.send_replace(true);
    }

    /// Claims again after a [`pause`](Self::pause).
    pub fn resume(&self) {
        self.subscription.paused.send_replace(false);
    }

    /// Whether it is paused.
    pub fn is_paused(&self) -> bool {
        *self.subscription.paused.borrow()
    }

    /// Stops claiming, hands back claims that no handler has begun, waits for the running handlers
    /// as long as the [shutdown timeout](SubscribeOptions::with_shutdown_timeout) says, records how
    /// they ended, and then drops those that are left. Their messages are delivered again at once,
    /// with the attempt counted unless it was the last.
    ///
    /// It takes at most four seconds longer than that timeout, whatever the store does: what a store that
    /// does not reply has not taken by then counts as [abandoned](CloseReport::abandoned). It comes again
    /// when its claim expires, unless the store has taken it after all.
    ///
    /// Handlers [see](crate::Context::closing) that this has begun, and no other starts. A second
    /// call waits for the same end and returns the same report.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the closing.
    pub async fn close(&self) -> CloseReport {
        self.subscription.closing.cancel();
        self.ended().await.report
    }

    /// Waits until the consumer has ended, and returns when and why: it was closed, or it could not
    /// continue. A consumer that cannot continue closes by itself; subscribe again to restore its group.
    ///
    /// Errors of the store that may pass do not end a consumer. It tries again.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future changes nothing.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        let ended = ended.wait_for(Option::is_some).await;
        // An error means that the runtime shut down and took the consumer's task with it.
        let ended = ended.ok().and_then(|ended| ended.clone());
        ended.unwrap_or_else(|| Ended::now(EndReason::Aborted, CloseReport::default()))
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("id", &self.id())
            .field("stream", &self.subscription.group().stream)
            .field("group", &self.subscription.group().group)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// When and why a consumer ended: see [`Consumer::ended`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
    /// What became of the messages that it had claimed.
    pub report: CloseReport,
}

/// Why a consumer ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum EndReason {
    /// It was closed, or dropped, or all consumers were closed.
    Closed,
    /// It could not continue: [`Error::UnknownGroup`] if its group was deleted or the store has lost it,
    /// [`Error::Closed`] if the store was closed.
    Failed(Error),
    /// The runtime shut down.
    Aborted,
}

impl Ended {
    pub(crate) fn now(reason: EndReason, report: CloseReport) -> Self {
        Self {
            at: Timestamp::now(),
            reason,
            report,
        }
    }
}

/// What became of the messages that were claimed when closing began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// Messages whose handlers ended by themselves, with success or not, and whose end was recorded.
    pub finished: u64,
    /// Messages that were claimed and not begun: handed back, with the attempt not counted.
    pub released: u64,
    /// Messages whose handlers were dropped at the deadline or did not react to that, or whose end the store did
    /// not record. They are delivered again.
    pub abandoned: u64,
}

impl AddAssign for CloseReport {
    fn add_assign(&mut self, other: Self) {
        self.finished += other.finished;
        self.released += other.released;
        self.abandoned += other.abandoned;
    }
}

/// What a consumer has done since it began, as the store has recorded it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// Messages acknowledged, also those that were deleted while a handler had them.
    pub acknowledged: u64,
    /// Attempts that failed and will be followed by another, unless the message is removed before.
    pub retried: u64,
    /// Messages moved to dead letters.
    pub dead_lettered: u64,
    /// Messages handed back that no handler had begun, or whose last attempt was cut short by closing or by the
    /// store.
    pub released: u64,
    /// Ends that came too late: another claim had taken the message, or it was removed before it could become
    /// a dead letter.
    pub stale: u64,
}

/// What the tasks of one subscription share.
pub(crate) struct Subscription {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) consumer: ConsumerKey,
    pub(crate) options: SubscribeOptions,
    pub(crate) dead_letters: StreamName,
    /// Cancelled when closing begins.
    pub(crate) closing: Arc<CancellationToken>,
    /// Whether no new messages are claimed for now.
    pub(crate) paused: watch::Sender<bool>,
    pub(crate) stats: Mutex<ConsumerStats>,
    pub(crate) overdue: overdue::Overdue,
    pub(crate) telemetry: GroupTelemetry,
    pub(crate) outages: Outages,
    /// The extending of claims, whichever handler has them.
    pub(crate) extending: Mutex<Part>,
}

impl Subscription {
    /// Waits for as long as it is paused.
    async fn unpaused(&self) {
        // The sender lives as long as this subscription does.
        drop(self.paused.subscribe().wait_for(|paused| !paused).await);
    }

    pub(crate) fn group(&self) -> &GroupKey {
        &self.consumer.group
    }
}

/// What is remembered of a message while a handler has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin {
    pub(crate) id: MessageId,
    pub(crate) created_at: Timestamp,
    pub(crate) attempt: u32,
}

impl Origin {
    fn of(message: &Message) -> Self {
        Self {
            id: message.id,
            created_at: message.created_at,
            attempt: message.attempt,
        }
    }
}

/// Waits for a time; for ever if there is none.
async fn after(delay: Option<Duration>) {
    match delay {
        Some(delay) => tokio::time::sleep(delay).await,
        None => std::future::pending().await,
    }
}
