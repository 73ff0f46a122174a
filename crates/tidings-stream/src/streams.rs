use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use uuid::Uuid;

use crate::consumer::outage::Outages;
use crate::consumer::overdue::Overdue;
use crate::consumer::poller::{CHECK_IN_TTL, Poller};
use crate::consumer::{self, CloseReport, Consumer, Ended, Subscription, janitor, pull};
use crate::engine::{ConsumerKey, Engine, GroupKey};
use crate::telemetry::GroupTelemetry;
use crate::{
    BatchHandler, Context, Error, GroupName, Handler, Message, MessageId, NewMessage,
    PulledMessages, Result, Retention, ServiceConfig, StreamName, SubscribeOptions,
    batch_with_context, message, telemetry,
};

mod admin;
mod redrive;

pub use redrive::{Redrive, Redriven};

/// Durable streams over one engine: publishing, subscribing, looking.
///
/// Clones share the engine, the consumers and the closing; each has settings of its own. When the
/// last clone and the last [`Consumer`] are dropped, what still runs begins to close.
///
/// # Errors
///
/// Every call may return [`Error::InvalidName`] for a name that cannot be used, of the application and the
/// namespace too; and from the store [`Error::Closed`], [`Error::OutcomeUnknown`] and [`Error::Backend`].
///
/// # Cancel safety
///
/// Where a call says nothing else: one that only looks changes nothing if its future is dropped, and any
/// other may or may not have done its work then, and never a part of it.
#[derive(Debug, Clone)]
pub struct Streams {
    shared: Arc<Shared>,
    config: ServiceConfig,
}

struct Shared {
    engine: Arc<dyn Engine>,
    closing: CancellationToken,
    /// One task per consumer.
    consumers: TaskTracker,
    /// The sum of the reports of consumers that were still open when closing began.
    closed: Arc<Mutex<CloseReport>>,
    poller: Poller,
    outages: Outages,
    /// The tasks of the janitor and the poller, started by the first call that needs a runtime anyway,
    /// and again by the next call or consumer once the runtime of that call has ended.
    housekeeping: Mutex<Option<[AbortOnDropHandle<()>; 2]>>,
    _closing: DropGuard,
}

impl Streams {
    /// Streams on an engine.
    pub fn new(engine: Arc<dyn Engine>, config: ServiceConfig) -> Self {
        let closing = CancellationToken::new();
        Self {
            shared: Arc::new(Shared {
                engine,
                consumers: TaskTracker::new(),
                closed: Arc::default(),
                poller: Poller::default(),
                outages: Outages::default(),
                housekeeping: Mutex::default(),
                _closing: closing.clone().drop_guard(),
                closing,
            }),
            config,
        }
    }

    /// The same streams under another application name; see [`ServiceConfig::with_app`].
    #[must_use]
    pub fn with_app(mut self, app: impl Into<String>) -> Self {
        self.config = self.config.with_app(app);
        self
    }

    /// The same streams in another namespace; see [`ServiceConfig::with_namespace`].
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.config = self.config.with_namespace(namespace);
        self
    }

    /// The same streams, with publishes through this handle that store this retention.
    #[must_use]
    pub fn with_retention(mut self, retention: Retention) -> Self {
        self.config = self.config.with_retention(retention);
        self
    }

    /// The full name of a stream, as this handle's settings make it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidName`], also for an application or namespace that cannot be used.
    pub fn name(&self, stream: &str) -> Result<StreamName> {
        StreamName::new(&self.config.app, &self.config.namespace, stream)
    }

    /// The file that the engine's commits go to, if that is one which other stores may share, as on SQLite.
    pub fn file(&self) -> Option<&Path> {
        self.shared.engine.file()
    }

    /// Appends a message. `Ok` means that it is on disk, where the engine has one.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after closing began; [`Error::TooLarge`] and [`Error::InvalidOption`] for a part of
    /// the message, for headers that begin with `x-dlq-`, or for a batch of more than
    /// [`MAX_BATCH_BYTES`](crate::MAX_BATCH_BYTES) (on Redis also of more than 100,000 messages);
    /// [`Error::Full`] if the store has no room; and [those of all calls](Self#errors).
    ///
    /// # Panics
    ///
    /// When called outside a Tokio runtime.
    pub async fn publish(&self, stream: &str, message: NewMessage) -> Result<MessageId> {
        let ids = self.append(stream, vec![message]).await?;
        ids.first().copied().ok_or_else(|| Error::backend(NoId))
    }

    /// Appends messages in order: all of them or none. Their ids follow each other without gaps, except
    /// those of repeated publish keys.
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish), as are panics.
    pub async fn publish_batch(
        &self,
        stream: &str,
        messages: Vec<NewMessage>,
    ) -> Result<Vec<MessageId>> {
        if messages.is_empty() {
            self.ensure_open()?;
            self.name(stream)?;
            return Ok(Vec::new());
        }
        self.append(stream, messages).await
    }

    /// Stores what a stream keeps, trims the stream to it, and creates the stream if need be.
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish), without those about messages. Panics are the same.
    pub async fn set_retention(&self, stream: &str, retention: Retention) -> Result<()> {
        self.ensure_open()?;
        let stream = self.name(stream)?;
        self.shared.engine.set_retention(&stream, retention).await
    }

    async fn append(&self, stream: &str, messages: Vec<NewMessage>) -> Result<Vec<MessageId>> {
        self.ensure_open()?;
        let stream = self.name(stream)?;
        message::check_batch(&messages)?;
        let count = messages.len();
        let appended = self
            .shared
            .engine
            .append(&stream, messages, self.config.retention)
            .await;
        telemetry::sent(&stream, count, appended.as_ref().err());
        appended
    }

    /// Starts to work through a stream as a member of a consumer group, which is created if need
    /// be.
    ///
    /// Members of one group share its messages; different groups get every message each. The
    /// subscription lives until its [`Consumer`] is closed or dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after closing began; [`Error::InvalidName`], also where `<stream>.dead` would be too
    /// long, and for a group whose name begins with `tidings.`; [`Error::InvalidOption`]; [`Error::StartAhead`];
    /// [`Error::Full`]; and [those of all calls](Self#errors). The call can be repeated.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have created the group, and leaves no subscription.
    ///
    /// # Panics
    ///
    /// When called outside a Tokio runtime.
    pub async fn subscribe<H: Handler>(
        &self,
        stream: &str,
        group: &str,
        options: SubscribeOptions,
        handler: H,
    ) -> Result<Consumer> {
        self.start_one_by_one(stream, group, options, handler, watch::Sender::new(false))
            .await
    }

    /// Starts to work through a stream as [`subscribe`](Self::subscribe) does, with a handler that
    /// takes several messages at once.
    ///
    /// [Concurrency](SubscribeOptions::with_concurrency) counts batches then, of up to
    /// [`with_max_batch`](SubscribeOptions::with_max_batch) messages each.
    ///
    /// # Errors
    ///
    /// As for [`subscribe`](Self::subscribe), as are cancel safety and panics.
    pub async fn subscribe_batch<H: BatchHandler>(
        &self,
        stream: &str,
        group: &str,
        options: SubscribeOptions,
        handler: H,
    ) -> Result<Consumer> {
        self.start(stream, group, options, handler, watch::Sender::new(false))
            .await
    }

    /// Takes messages of a stream as a member of a consumer group, as [`subscribe`](Self::subscribe) does,
    /// when they are asked for: [`PulledMessages`] is a stream of them, and what is done with each
    /// [`PulledMessage`](crate::PulledMessage) settles its message.
    ///
    /// [Concurrency](SubscribeOptions::with_concurrency) bounds how many are in hand at a time.
    ///
    /// # Errors
    ///
    /// As for [`subscribe`](Self::subscribe), as are cancel safety and panics.
    pub async fn pull(
        &self,
        stream: &str,
        group: &str,
        options: SubscribeOptions,
    ) -> Result<PulledMessages> {
        options.check()?;
        let paused = watch::Sender::new(true);
        let (handler, offers) = pull::offering(&options, paused.clone());
        // The time of a delivery is counted by what has offered it.
        let options = options.with_handler_timeout(Duration::MAX);
        let consumer = self.start_one_by_one(stream, group, options, handler, paused);
        Ok(PulledMessages::new(consumer.await?, offers))
    }

    async fn start_one_by_one(
        &self,
        stream: &str,
        group: &str,
        options: SubscribeOptions,
        handler: impl Handler,
        paused: watch::Sender<bool>,
    ) -> Result<Consumer> {
        let handler = Arc::new(handler);
        let one_by_one = batch_with_context(move |messages: Vec<Message>, context: Context| {
            let handler = Arc::clone(&handler);
            async move {
                for message in messages {
                    handler.handle(message, context.clone()).await?;
                }
                Ok(())
            }
        });
        // A handler for one message gets one.
        let options = options.with_max_batch(1);
        self.start(stream, group, options, one_by_one, paused).await
    }

    async fn start(
        &self,
        stream: &str,
        group: &str,
        options: SubscribeOptions,
        handler: impl BatchHandler,
        paused: watch::Sender<bool>,
    ) -> Result<Consumer> {
        self.ensure_open()?;
        options.check()?;
        let key = self.own_group(stream, group)?;
        let dead_letters = match &options.dead_letter_stream {
            Some(name) => self.name_in("dead_letter_stream", name)?,
            None => key.stream.dead_letter(),
        };
        if dead_letters == key.stream {
            return Err(Error::InvalidOption {
                field: "dead_letter_stream",
                expected: "another stream",
            });
        }
        // The name of a long stream has no room for the suffix, and what no call accepts as a name
        // must not be made.
        dead_letters.as_str().parse::<StreamName>()?;
        let engine = Arc::clone(&self.shared.engine);
        let wakes = engine.wakes().subscribe(&key.stream);
        engine.open_group(&key, options.start).await?;
        let consumer = ConsumerKey {
            group: key,
            consumer: Uuid::now_v7().to_string().into(),
        };
        let present = Arc::from([consumer.clone()]);
        match engine.check_in(present, CHECK_IN_TTL).await {
            // The group is there, and the poller checks in again: a consumer starts on a full disk, and
            // begins to work when there is room.
            Err(Error::Full(_)) => {}
            other => other?,
        }
        let shared = Arc::downgrade(&self.shared);
        let janitor_interval = self.config.janitor_interval;
        let keep_house = move || {
            if let Some(shared) = shared.upgrade() {
                shared.keep_house(janitor_interval);
            }
        };
        let poller = &self.shared.poller;
        let registration = poller.register(consumer.clone(), options.poll_interval, keep_house);

        let subscription = Arc::new(Subscription {
            telemetry: GroupTelemetry::new(&consumer.group),
            engine,
            consumer,
            dead_letters,
            closing: Arc::new(self.shared.closing.child_token()),
            paused,
            options,
            stats: Mutex::default(),
            overdue: Overdue::default(),
            extending: Mutex::new(self.shared.outages.part("extending claims")),
            outages: self.shared.outages.clone(),
        });
        let (report, ended) = watch::channel(None);
        let running = consumer::run(Arc::clone(&subscription), handler, wakes, registration);
        let (all_closing, total) = (self.shared.closing.clone(), Arc::clone(&self.shared.closed));
        let consuming = async move {
            let (reason, closed) = running.await;
            if all_closing.is_cancelled() {
                *total.lock() += closed;
            }
            report.send_replace(Some(Ended::now(reason, closed)));
        };
        self.shared.consumers.spawn(consuming.boxed());
        Ok(Consumer::new(
            subscription,
            ended,
            Arc::clone(&self.shared) as _,
        ))
    }

    /// Says that a stream has something new. Call it after the commit of a transaction of the caller's
    /// own in which messages were published. Without it they are found at the next poll.
    pub fn wake(&self, stream: &StreamName) {
        self.shared.engine.wake(stream);
    }

    /// Refuses new publishes and subscriptions, and closes every consumer as
    /// [`Consumer::close`] does, all at the same time. Returns the sum of their reports.
    ///
    /// A second call waits for the same end and returns the same sum. The store below stays open.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the closing.
    pub async fn close(&self) -> CloseReport {
        self.shared.closing.cancel();
        self.shared.consumers.close();
        self.shared.consumers.wait().await;
        *self.shared.closed.lock()
    }

    fn ensure_open(&self) -> Result<()> {
        if self.shared.closing.is_cancelled() {
            return Err(Error::Closed);
        }
        self.config.check()?;
        self.shared.keep_house(self.config.janitor_interval);
        Ok(())
    }

    /// The full name of a stream that an option names.
    fn name_in(&self, option: &'static str, stream: &str) -> Result<StreamName> {
        self.name(stream).map_err(|error| match error {
            Error::InvalidName {
                field: "stream",
                source,
            } => Error::InvalidName {
                field: option,
                source,
            },
            other => other,
        })
    }

    /// A group that the application makes.
    fn own_group(&self, stream: &str, group: &str) -> Result<GroupKey> {
        Ok(GroupKey {
            stream: self.name(stream)?,
            group: GroupName::of_application(group)?,
        })
    }

    fn group(&self, stream: &str, group: &str) -> Result<GroupKey> {
        Ok(GroupKey {
            stream: self.name(stream)?,
            group: GroupName::new(group)?,
        })
    }
}

impl Shared {
    /// Starts the tasks of the janitor and the poller, unless they run.
    fn keep_house(&self, janitor_interval: Duration) {
        let mut tasks = self.housekeeping.lock();
        let are_running =
            |tasks: &[AbortOnDropHandle<()>; 2]| tasks.iter().all(|it| !it.is_finished());
        if self.closing.is_cancelled() || tasks.as_ref().is_some_and(are_running) {
            return;
        }
        let (engine, closing) = (Arc::downgrade(&self.engine), self.closing.clone());
        let outages = self.outages.clone();
        let janitor = janitor::run(engine.clone(), janitor_interval, outages, closing.clone());
        let polling = self.poller.clone();
        let polling = polling.run(engine, self.outages.clone(), closing);
        *tasks = Some(
            [janitor.boxed(), polling.boxed()]
                .map(|task| AbortOnDropHandle::new(tokio::spawn(task))),
        );
    }
}

/// An engine that returned no id for a message.
#[derive(Debug, thiserror::Error)]
#[error("the engine returned no id for a message")]
struct NoId;

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("consumers", &self.consumers.len())
            .field("closing", &self.closing.is_cancelled())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemoryEngine;

    #[tokio::test]
    async fn the_last_handle_frees_the_engine_at_once() {
        let streams = Streams::new(Arc::new(MemoryEngine::new()), ServiceConfig::default());
        streams.publish("s", NewMessage::new("")).await.unwrap();
        let consumer = streams
            .subscribe("s", "g", SubscribeOptions::default(), |_| async { Ok(()) })
            .await
            .unwrap();
        let engine = Arc::downgrade(&streams.shared.engine);
        consumer.close().await;
        drop((consumer, streams));
        assert!(engine.upgrade().is_none());
    }
}
