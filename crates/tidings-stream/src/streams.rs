use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
use uuid::Uuid;

use crate::consumer::poller::{FIRST_CHECK_IN_TTL, Poller};
use crate::consumer::{self, CloseReport, Consumer, Counters, Subscription, janitor};
use crate::engine::{ConsumerKey, Engine, GroupKey};
use crate::{
    BatchHandler, Error, GroupName, Handler, Message, MessageId, NewMessage, Retention,
    ServiceConfig, StreamName, SubscribeOptions,
};

mod admin;
mod redrive;

pub use redrive::{Redrive, Redriven};

/// Durable streams over one engine: publishing, subscribing, looking.
///
/// Clones share the engine, the consumers and the closing; each has settings of its own. When the
/// last clone and the last [`Consumer`] are dropped, what still runs begins to close.
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
    /// The janitor's task and the poller's, started by the first call that needs a runtime anyway.
    housekeeping: OnceLock<[AbortOnDropHandle<()>; 2]>,
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
                housekeeping: OnceLock::new(),
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

    /// The same streams, whose publishes through this handle ask for another retention.
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
    pub fn name(&self, stream: &str) -> Result<StreamName, Error> {
        StreamName::new(&self.config.app, &self.config.namespace, stream)
    }

    /// Appends a message. `Ok` means that it is on disk, where the engine has one.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after closing began, [`Error::InvalidName`], [`Error::TooLarge`],
    /// [`Error::Full`] when the store has no room, [`Error::Backend`] when it fails.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may or may not have published the message.
    pub async fn publish(&self, stream: &str, message: NewMessage) -> Result<MessageId, Error> {
        let ids = self.append(stream, vec![message]).await?;
        ids.first().copied().ok_or_else(|| Error::backend(NoId))
    }

    /// Appends messages in order: all of them or none. Their ids follow each other without gaps.
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish).
    ///
    /// # Cancel safety
    ///
    /// A dropped future may or may not have published the messages, never a part of them.
    pub async fn publish_batch(
        &self,
        stream: &str,
        messages: Vec<NewMessage>,
    ) -> Result<Vec<MessageId>, Error> {
        if messages.is_empty() {
            self.name(stream)?;
            return Ok(Vec::new());
        }
        self.append(stream, messages).await
    }

    /// Sets what a stream keeps, and creates it if need be, as a publish with that retention would:
    /// for streams that are published to inside other transactions, which leave it alone.
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish).
    ///
    /// # Cancel safety
    ///
    /// A dropped future may or may not have set it.
    pub async fn set_retention(&self, stream: &str, retention: Retention) -> Result<(), Error> {
        self.ensure_open()?;
        let stream = self.name(stream)?;
        self.shared
            .engine
            .append(&stream, Vec::new(), retention)
            .await
            .map(drop)
    }

    async fn append(
        &self,
        stream: &str,
        messages: Vec<NewMessage>,
    ) -> Result<Vec<MessageId>, Error> {
        self.ensure_open()?;
        let stream = self.name(stream)?;
        for message in &messages {
            message.check()?;
        }
        self.shared
            .engine
            .append(&stream, messages, self.config.retention)
            .await
    }

    /// Starts to work through a stream as a member of a consumer group, which is created if need
    /// be.
    ///
    /// Members of one group share its messages; different groups get every message each. The
    /// subscription lives until its [`Consumer`] is closed or dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after closing began, [`Error::InvalidName`], [`Error::InvalidOption`],
    /// [`Error::StartAhead`], [`Error::Full`] or [`Error::Backend`] from the store.
    ///
    /// # Cancel safety
    ///
    /// A dropped future may have created the group, and has subscribed nobody.
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
    ) -> Result<Consumer, Error> {
        let handler = Arc::new(handler);
        let one_by_one = move |messages: Vec<Message>| {
            let handler = Arc::clone(&handler);
            async move {
                for message in messages {
                    handler.handle(message).await?;
                }
                Ok(())
            }
        };
        // A handler for one message gets one.
        let options = options.with_max_batch(1);
        self.start(stream, group, options, one_by_one).await
    }

    /// Starts to work through a stream as [`subscribe`](Self::subscribe) does, with a handler that
    /// takes several messages at once.
    ///
    /// [Concurrency](SubscribeOptions::with_concurrency) counts batches then, of up to
    /// [`with_max_batch`](SubscribeOptions::with_max_batch) messages each.
    ///
    /// # Errors
    ///
    /// As for [`subscribe`](Self::subscribe).
    ///
    /// # Cancel safety
    ///
    /// As for [`subscribe`](Self::subscribe).
    ///
    /// # Panics
    ///
    /// When called outside a Tokio runtime.
    pub async fn subscribe_batch<H: BatchHandler>(
        &self,
        stream: &str,
        group: &str,
        options: SubscribeOptions,
        handler: H,
    ) -> Result<Consumer, Error> {
        self.start(stream, group, options, handler).await
    }

    async fn start(
        &self,
        stream: &str,
        group: &str,
        options: SubscribeOptions,
        handler: impl BatchHandler,
    ) -> Result<Consumer, Error> {
        self.ensure_open()?;
        options.check()?;
        let key = self.group(stream, group)?;
        let dead_letters = match &options.dead_letter_stream {
            Some(name) => self.name(name)?,
            None => key.stream.dead_letter(),
        };
        if dead_letters == key.stream {
            return Err(Error::InvalidOption {
                field: "dead_letter_stream",
                expected: "another stream",
            });
        }
        let engine = Arc::clone(&self.shared.engine);
        let wakes = engine.wakes().subscribe(&key.stream);
        engine.open_group(&key, options.start).await?;
        let consumer = ConsumerKey {
            group: key,
            consumer: Uuid::now_v7().to_string().into(),
        };
        let present = Arc::from([consumer.clone()]);
        engine.check_in(present, FIRST_CHECK_IN_TTL).await?;
        let registration = self
            .shared
            .poller
            .register(consumer.clone(), options.poll_interval);

        let subscription = Arc::new(Subscription {
            engine,
            consumer,
            options,
            dead_letters,
            closing: self.shared.closing.child_token(),
            paused: watch::Sender::new(false),
            counters: Counters::default(),
        });
        let (report, reported) = watch::channel(None);
        let running = consumer::run(Arc::clone(&subscription), handler, wakes, registration);
        let (all_closing, total) = (self.shared.closing.clone(), Arc::clone(&self.shared.closed));
        self.shared.consumers.spawn(async move {
            let closed = running.await;
            if all_closing.is_cancelled() {
                *total.lock().unwrap_or_else(PoisonError::into_inner) += closed;
            }
            report.send_replace(Some(closed));
        });
        Ok(Consumer::new(
            subscription,
            reported,
            Arc::clone(&self.shared) as _,
        ))
    }

    /// Wakes this process's consumers of a stream.
    ///
    /// Only for messages that were appended past this handle, inside a transaction of the caller's
    /// own, once that has been committed. Without it they are found at the next poll.
    pub fn wake(&self, stream: &StreamName) {
        self.shared.engine.wakes().wake(stream);
    }

    /// Refuses new publishes and subscriptions, and closes every consumer as
    /// [`Consumer::close`] does, all at the same time. Answers the sum of their reports.
    ///
    /// A second call waits for the same end and answers the same sum. The store below stays open.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not stop the closing.
    pub async fn close(&self) -> CloseReport {
        self.shared.closing.cancel();
        self.shared.consumers.close();
        self.shared.consumers.wait().await;
        *self
            .shared
            .closed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn ensure_open(&self) -> Result<(), Error> {
        if self.shared.closing.is_cancelled() {
            return Err(Error::Closed);
        }
        self.shared.housekeeping.get_or_init(|| {
            let Shared {
                engine,
                closing,
                poller,
                ..
            } = &*self.shared;
            let interval = self.config.janitor_interval;
            let janitor = janitor::run(Arc::downgrade(engine), interval, closing.clone());
            let polling = poller.clone().run(Arc::downgrade(engine), closing.clone());
            [tokio::spawn(janitor), tokio::spawn(polling)].map(AbortOnDropHandle::new)
        });
        Ok(())
    }

    fn group(&self, stream: &str, group: &str) -> Result<GroupKey, Error> {
        Ok(GroupKey {
            stream: self.name(stream)?,
            group: GroupName::new(group)?,
        })
    }
}

/// An engine that answered an append without an id.
#[derive(Debug, thiserror::Error)]
#[error("the engine answered no id for a message")]
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
