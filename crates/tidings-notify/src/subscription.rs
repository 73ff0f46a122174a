//! A live stream of one user's events.

mod item;
mod start;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::{FusedStream, Stream};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::ReusableBoxFuture;

use crate::budget::{Budget, cost};
use crate::hub::{AfterCursor, Asked, Channel};
use crate::instance::{Instance, Tasks};
use crate::{Closed, Error, Event, EventId, MAX_PAGE_BYTES, Page, Since, StoreError, UserId};

pub use item::{Gap, GapReason, Hello, Item};

use self::start::Start;

/// Wait before the store is asked again after it failed.
const RETRY_DELAY: Duration = Duration::from_millis(500);

/// Most events read from the store at a time.
const MAX_PAGE: usize = 1000;

/// A live stream of one user's events, which begins after a cursor and misses nothing.
///
/// It is a cursor and a wake-up. A slow reader costs no memory and loses nothing: the events that it
/// has not read yet stay in the store. Dropping it is the same as [`close`](Self::close).
///
/// The stream gives every event after its cursor once, in the order of the log. If it cannot,
/// because events have been removed or the cursor is not of this log, it gives an [`Item::Gap`]
/// and continues with the oldest event that is kept.
///
/// It is a [`Stream`] of what [`next`](Self::next) returns, which ends where that returns an error.
///
/// ```
/// use futures_util::StreamExt;
/// use tidings_notify::{Item, Subscription};
///
/// /// The types of the next ten events.
/// async fn types(stream: Subscription) -> Vec<String> {
///     let types = stream.filter_map(async |item| match item {
///         Item::Event(event) => Some(event.event_type.to_string()),
///         _ => None,
///     });
///     types.take(10).collect().await
/// }
/// ```
///
/// As a stream it is fused, and cancel safe: a future that was made of it and is dropped has taken nothing.
#[derive(Debug)]
#[must_use = "a stream that is dropped is closed"]
pub struct Subscription {
    instance: Arc<Instance>,
    /// Keeps the sweep running for as long as there is a stream.
    _tasks: Arc<Tasks>,
    channel: Arc<Channel>,
    /// Its place at the channel.
    place: usize,
    user: UserId,
    /// Until it is taken.
    hello: Option<Box<Hello>>,
    /// The last event that the reader was given.
    cursor: EventId,
    /// Nothing while it waits.
    stored: Option<Box<Stored>>,
    /// The number at which the backlog ends, until [`Item::CaughtUp`] has been given.
    backlog_end: Option<u64>,
    /// How many of the channel's changes of the inbox the reader has been given.
    changes_heard: u64,
    gaps: u64,
    /// It counts as a stream of the channel.
    is_open: bool,
    /// It has given everything that it gives.
    has_ended: bool,
}

/// What a stream has of the events that it takes from the store.
#[derive(Debug)]
enum Stored {
    /// Some of them are missing.
    Gap(Gap),
    /// The rest of the last page, which is not empty: at most a page, and only of the backlog.
    Page(VecDeque<Arc<Event>>),
    /// A read that is under way. It continues when the caller drops the future that began it.
    Reading {
        /// What was known when the store was asked.
        known: Asked,
        reply: ReusableBoxFuture<'static, Result<Page, StoreError>>,
    },
    /// The store failed, and may be asked again at this time.
    Failed { retry_at: Instant },
}

/// What the reader can be given at this moment.
enum Step {
    Items(Vec<Item>),
    AskStore { known: Asked },
    Wait,
    End,
}

impl Subscription {
    /// Joins the user's channel, and only then asks where the log stands: an event that is stored
    /// from now on either is in that result, or comes through the channel.
    pub(crate) async fn open(
        instance: Arc<Instance>,
        tasks: Arc<Tasks>,
        user: UserId,
        since: &Since,
    ) -> Result<Self, Error> {
        let channel = instance.hub.join(&user).ok_or(Error::Closed)?;
        instance.stats.stream_opened();
        let mut subscription = Self {
            changes_heard: channel.changes_end(),
            instance,
            _tasks: tasks,
            place: channel.enter(),
            channel,
            user,
            hello: None,
            cursor: EventId::ORIGIN,
            stored: None,
            backlog_end: None,
            gaps: 0,
            is_open: true,
            has_ended: false,
        };
        // From here on, an error or a dropped future leaves the channel by `drop`.
        subscription.begin(since).await?;
        Ok(subscription)
    }

    async fn begin(&mut self, since: &Since) -> Result<(), Error> {
        let asked = self.channel.asked();
        let delivered = self.instance.delivered.pending(&self.user);
        let (start, head) =
            Start::find(since, &*self.instance.store, &self.user, delivered).await?;
        self.channel.observe((&head).into(), asked);
        self.cursor = start.cursor;
        self.backlog_end = Some(head.top_seq);
        self.hello = Some(Box::new(Hello {
            cursor: match start.gap {
                Some(gap) => gap.from.unwrap_or(EventId::ORIGIN),
                None => start.cursor,
            },
            top: head.top(),
            unread: head.unread,
            unseen: head.unseen,
        }));
        self.stored = start.gap.map(|gap| Box::new(Stored::Gap(gap)));
        Ok(())
    }

    /// Takes where the stream began: `None` after the first time. A stream may last, and what is said once need not be
    /// kept.
    pub fn take_hello(&mut self) -> Option<Hello> {
        self.hello.take().map(|hello| *hello)
    }

    /// The user whose events these are.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// The last event that the stream gave, or where it begins.
    pub fn cursor(&self) -> EventId {
        self.cursor
    }

    /// How many gaps the stream has given: the times when a reader may have missed something.
    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    /// Whether the stream reads the store, or is about to.
    pub fn is_reading(&self) -> bool {
        matches!(
            self.stored.as_deref(),
            Some(Stored::Reading { .. } | Stored::Failed { .. })
        )
    }

    /// Whether the stream has given everything that is known here: it waits for something new.
    pub fn is_caught_up(&self) -> bool {
        self.stored.is_none()
            && self.backlog_end.is_none()
            && matches!(self.channel.view().after(self.cursor), AfterCursor::Nothing)
    }

    /// Waits for the next item.
    ///
    /// # Errors
    ///
    /// [`Closed`] when this stream or the store was closed, or when the notifier was, or its runtime has ended, and the
    /// stream has given everything that was known by then. A store that fails is asked again and makes no
    /// error.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses nothing: the next call gives what this one would have given. A read
    /// of the store that is under way is used by the next call.
    pub async fn next(&mut self) -> Result<Item, Closed> {
        // A batch has at least one item.
        self.next_batch(1, MAX_PAGE_BYTES)
            .await?
            .pop()
            .ok_or(Closed)
    }

    /// Waits until there is something and gives all there is, up to `max` items (at least one), and
    /// after the first event up to `max_bytes` of payloads.
    ///
    /// # Errors
    ///
    /// As for [`next`](Self::next).
    ///
    /// # Cancel safety
    ///
    /// As for [`next`](Self::next).
    pub async fn next_batch(&mut self, max: usize, max_bytes: usize) -> Result<Vec<Item>, Closed> {
        poll_fn(|context| self.poll_next_batch(context, max, max_bytes)).await
    }

    /// As [`next_batch`](Self::next_batch), for a caller who polls: it takes no more memory while it waits. The task of
    /// the last poll is woken when there is something.
    ///
    /// # Errors
    ///
    /// As for [`next`](Self::next).
    pub fn poll_next_batch(
        &mut self,
        context: &mut Context<'_>,
        max: usize,
        max_bytes: usize,
    ) -> Poll<Result<Vec<Item>, Closed>> {
        let max = max.max(1);
        while !self.has_ended {
            // The cursor does not move while a read of the store is under way.
            if ready!(self.poll_reading(context)).is_err() {
                break;
            }
            // Before looking, so that what changes in between wakes it.
            self.channel.wake_later(self.place, context.waker());
            match self.step(max, max_bytes) {
                Step::Items(items) => return Poll::Ready(Ok(items)),
                Step::AskStore { known } => self.begin_reading(max, known),
                Step::Wait => return Poll::Pending,
                Step::End => break,
            }
        }
        self.has_ended = true;
        Poll::Ready(Err(Closed))
    }

    /// Records that the client has been sent everything up to this event, so that
    /// [`Since::Undelivered`] begins after it.
    ///
    /// It is kept in memory and written to the store in the background, together with others. An id
    /// that this stream has not given yet, or of another log, is ignored: it may have come from the
    /// client.
    pub fn sent(&self, id: EventId) {
        if id.epoch == self.cursor.epoch && id.seq <= self.cursor.seq {
            let present = self.channel.asked().position.epoch;
            self.instance.delivered.mark(&self.user, id, present);
        }
    }

    /// Ends the stream: it gives nothing more.
    pub fn close(&mut self) {
        if self.is_open {
            self.is_open = false;
            self.has_ended = true;
            self.stored = None;
            self.channel.leave(self.place);
            self.instance.hub.leave(&self.user);
            self.instance.stats.stream_closed();
            self.instance.delivered.flush_soon();
        }
    }

    /// Takes what can be given without waiting.
    fn step(&mut self, max: usize, max_bytes: usize) -> Step {
        let channel = self.channel.clone();
        let view = channel.view();
        let mut items = Vec::new();
        let mut budget = Budget::new(max_bytes);
        let mut ask_store = false;
        while items.len() < max {
            if let Some(Stored::Gap(gap)) = self.stored.as_deref() {
                items.push(Item::Gap(*gap));
                self.gaps += 1;
                self.stored = None;
            } else if self.backlog_end.is_some_and(|end| self.cursor.seq >= end) {
                self.backlog_end = None;
                items.push(Item::CaughtUp {
                    cursor: self.cursor,
                });
            } else if let Some((change, heard)) = view.change_after(self.changes_heard, self.cursor)
            {
                self.changes_heard = heard;
                items.push(Item::Changed(change));
            } else {
                let event = match self.next_stored() {
                    Some(event) => event.clone(),
                    None => match view.after(self.cursor) {
                        AfterCursor::Event(event) => event,
                        AfterCursor::Nothing => break,
                        AfterCursor::AskStore => {
                            ask_store = true;
                            break;
                        }
                    },
                };
                if !budget.admit(cost(&event)) {
                    break;
                }
                self.advance();
                self.cursor = event.id;
                items.push(Item::Event(event));
            }
        }
        if !items.is_empty() {
            // Without the lock: a recorder of metrics may use the notifier.
            drop(view);
            self.instance.stats.gave(&items);
            return Step::Items(items);
        }
        let known = view.asked();
        match (ask_store, view.is_closing()) {
            (true, _) => Step::AskStore { known },
            (false, true) => Step::End,
            (false, false) => Step::Wait,
        }
    }

    /// The next event of the page.
    fn next_stored(&self) -> Option<&Arc<Event>> {
        match self.stored.as_deref() {
            Some(Stored::Page(page)) => page.front(),
            _ => None,
        }
    }

    /// Steps over the next event, if it is of the page.
    fn advance(&mut self) {
        self.stored.take_if(|stored| match &mut **stored {
            Stored::Page(page) => {
                page.pop_front();
                page.is_empty()
            }
            _ => false,
        });
    }

    fn begin_reading(&mut self, max: usize, known: Asked) {
        let limit = max.max(self.instance.page_size).min(MAX_PAGE);
        let (store, user) = (self.instance.store.clone(), self.user.clone());
        let after = self.cursor.seq;
        let retry_at = match self.stored.as_deref() {
            Some(Stored::Failed { retry_at }) => Some(*retry_at),
            _ => None,
        };
        let reply = ReusableBoxFuture::new(async move {
            if let Some(at) = retry_at {
                sleep_until(at).await;
            }
            store.read(&user, after, limit).await
        });
        self.stored = Some(Box::new(Stored::Reading { known, reply }));
    }

    fn poll_reading(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Closed>> {
        let Some(Stored::Reading { known, reply }) = self.stored.as_deref_mut() else {
            return Poll::Ready(Ok(()));
        };
        let known = *known;
        let reply = ready!(reply.poll(context));
        self.stored = None;
        Poll::Ready(self.finish_reading(known, reply))
    }

    fn finish_reading(
        &mut self,
        known: Asked,
        reply: Result<Page, StoreError>,
    ) -> Result<(), Closed> {
        match reply {
            Ok(page) => {
                self.channel.observe((&page.head).into(), known);
                let gave_nothing = page.events.is_empty() && self.cursor.seq < page.head.top_seq;
                if !self.take_page(page) && gave_nothing {
                    tracing::error!(user = %self.user, "the notification store returned no events of a log that has some, trying again");
                    self.retry_later();
                }
                Ok(())
            }
            Err(StoreError::Closed) => Err(Closed),
            Err(error) if self.channel.view().is_closing() => {
                tracing::warn!(error = &error as &dyn std::error::Error, user = %self.user, "failed to read the last events of a stream, which ends without them");
                Err(Closed)
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, user = %self.user, "failed to read a stream, trying again");
                self.retry_later();
                Ok(())
            }
        }
    }

    fn retry_later(&mut self) {
        let retry_at = Instant::now() + RETRY_DELAY;
        self.stored = Some(Box::new(Stored::Failed { retry_at }));
    }

    /// Takes in a page of the store. Returns `true` if it begins with a gap.
    fn take_page(&mut self, page: Page) -> bool {
        let head = page.head;
        if let Some(reason) = GapReason::between(self.cursor, head.top(), head.first_seq) {
            let to = head.before_first();
            let from = Some(self.cursor);
            self.cursor = to;
            self.backlog_end = self.backlog_end.map(|_| head.top_seq);
            self.stored = Some(Box::new(Stored::Gap(Gap { from, to, reason })));
            true
        } else {
            self.cursor.epoch = head.epoch;
            let events: VecDeque<_> = page.events.into_iter().map(Arc::new).collect();
            self.stored = (!events.is_empty()).then(|| Box::new(Stored::Page(events)));
            false
        }
    }
}

impl Stream for Subscription {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Item>> {
        // A batch has at least one item.
        let batch = ready!(self.poll_next_batch(context, 1, MAX_PAGE_BYTES));
        Poll::Ready(batch.ok().and_then(|mut items| items.pop()))
    }
}

impl FusedStream for Subscription {
    fn is_terminated(&self) -> bool {
        self.has_ended
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.close();
    }
}
