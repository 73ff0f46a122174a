use std::fmt;
use std::ops::AddAssign;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::engine::{ConsumerKey, Engine, GroupKey};
use crate::{Message, MessageId, StreamName, SubscribeOptions};

mod attempt;
pub(crate) mod batch_handler;
mod dispatch;
pub(crate) mod handler;
pub(crate) mod janitor;
pub(crate) mod poller;
mod settler;
mod time_limit;

pub(crate) use dispatch::run;

/// A running subscription.
///
/// Dropping it begins the same closing as [`close`](Self::close), and nobody learns how it ended.
#[must_use = "dropping a consumer closes it"]
pub struct Consumer {
    subscription: Arc<Subscription>,
    report: watch::Receiver<Option<CloseReport>>,
    /// Ends the subscription with the handle.
    _closing: DropGuard,
    /// Keeps the store's janitor going for as long as somebody consumes.
    _streams: Arc<dyn Send + Sync>,
}

impl Consumer {
    pub(crate) fn new(
        subscription: Arc<Subscription>,
        report: watch::Receiver<Option<CloseReport>>,
        streams: Arc<dyn Send + Sync>,
    ) -> Self {
        let closing = subscription.closing.clone().drop_guard();
        Self {
            subscription,
            report,
            _closing: closing,
            _streams: streams,
        }
    }

    /// A name that no other subscription has, in this process or another. Dead letters carry it.
    pub fn id(&self) -> &str {
        &self.subscription.consumer.consumer
    }

    /// What this subscription has done so far.
    pub fn stats(&self) -> ConsumerStats {
        self.subscription.counters.read()
    }

    /// Stops claiming until [`resume`](Self::resume), in this consumer alone: the others of its group
    /// go on. Handlers that run finish, and closing works as ever. A claim that is under way may
    /// still bring messages.
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
    /// they ended, and then drops those that are left; their messages come again at once, with the
    /// attempt counted.
    ///
    /// No handler starts once this has begun. A second call waits for the same end and answers the
    /// same report.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the closing.
    pub async fn close(&self) -> CloseReport {
        self.subscription.closing.cancel();
        let mut report = self.report.clone();
        match report.wait_for(Option::is_some).await {
            Ok(report) => report.unwrap_or_default(),
            // The runtime shut down and took the subscription's task with it.
            Err(_) => CloseReport::default(),
        }
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

/// How closing ended for the messages that were in hand when it began.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseReport {
    /// Handlers that ended by themselves, well or badly, and whose end was recorded.
    pub finished: u64,
    /// Messages that were claimed and not begun: handed back, with the attempt not counted.
    pub released: u64,
    /// Handlers that were dropped at the deadline or did not even react to that, and ends that the
    /// store did not take. Their messages come again.
    pub abandoned: u64,
}

impl AddAssign for CloseReport {
    fn add_assign(&mut self, other: Self) {
        self.finished += other.finished;
        self.released += other.released;
        self.abandoned += other.abandoned;
    }
}

/// What a subscription has done since it began, by what the store has recorded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumerStats {
    /// Messages acknowledged.
    pub acknowledged: u64,
    /// Attempts that failed and will be followed by another.
    pub retried: u64,
    /// Messages moved to dead letters.
    pub dead_lettered: u64,
    /// Messages handed back unhandled.
    pub released: u64,
    /// Ends that came too late: somebody else had claimed the message by then.
    pub stale: u64,
}

/// What the tasks of one subscription share.
pub(crate) struct Subscription {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) consumer: ConsumerKey,
    pub(crate) options: SubscribeOptions,
    pub(crate) dead_letters: StreamName,
    /// Cancelled when closing begins.
    pub(crate) closing: CancellationToken,
    /// Whether no new messages are claimed for now.
    pub(crate) paused: watch::Sender<bool>,
    pub(crate) counters: Counters,
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

/// What is remembered of a message while its handler has it.
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

/// The live form of [`ConsumerStats`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) acknowledged: AtomicU64,
    pub(crate) retried: AtomicU64,
    pub(crate) dead_lettered: AtomicU64,
    pub(crate) released: AtomicU64,
    pub(crate) stale: AtomicU64,
}

impl Counters {
    fn read(&self) -> ConsumerStats {
        ConsumerStats {
            acknowledged: self.acknowledged.load(Ordering::Relaxed),
            retried: self.retried.load(Ordering::Relaxed),
            dead_lettered: self.dead_lettered.load(Ordering::Relaxed),
            released: self.released.load(Ordering::Relaxed),
            stale: self.stale.load(Ordering::Relaxed),
        }
    }
}
