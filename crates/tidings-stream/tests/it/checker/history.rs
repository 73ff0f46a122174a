//! What a process does to the streams: all of it at the same time.

use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tidings_stream::{
    CloseReport, Error, HandlerError, Message, NewMessage, Redrive, Retention, RetryDelay,
    StartFrom, Streams, SubscribeOptions,
};

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::record::{Call, Event, Record, ordering_key};
use super::{GROUPS, IN_ORDER, MAX_IN_FLIGHT, MAX_RETRIES, Opened, STREAM};
use crate::effects::{Effects, End};

/// The part of one process in a history.
#[derive(Debug)]
pub(super) struct History {
    pub(super) record: Record,
    next: AtomicU64,
    /// Whether nothing more is to be published.
    pub(super) is_over: AtomicBool,
}

/// How a group is consumed. The second one keeps the order of keys, and is bounded.
fn options(group: usize) -> SubscribeOptions {
    let options = SubscribeOptions::default()
        .with_start(StartFrom::Earliest)
        .with_visibility_timeout(Duration::from_millis(400))
        .with_poll_interval(Duration::from_millis(20))
        .with_retry_delay(RetryDelay::fixed(Duration::from_millis(5)))
        .with_max_retries(MAX_RETRIES)
        .with_concurrency(4);
    match group {
        IN_ORDER => options.with_key_order().with_max_in_flight(MAX_IN_FLIGHT),
        _ => options,
    }
}

impl History {
    /// One that publishes numbers from this one on.
    pub(super) fn new(record: Record, first: u64) -> Self {
        Self {
            record,
            next: AtomicU64::new(first),
            is_over: AtomicBool::new(false),
        }
    }

    /// Publishes and operates until it is over, and consumes until that is done.
    pub(super) async fn work(self: &Arc<Self>, opened: &Opened, is_done: &AtomicBool) {
        let streams = &opened.streams;
        let consuming = (0..GROUPS.len()).map(|group| self.consume(opened, group, is_done));
        let consuming = join_all(consuming);
        tokio::join!(self.publish(streams), self.operate(streams), consuming);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Numbers as messages. Every other one can be published again.
    async fn publish(&self, streams: &Streams) {
        while !self.is_over() {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let is_keyed = number.is_multiple_of(2);
            let message = || {
                let mut message = NewMessage::new(number.to_string());
                if let Some(key) = ordering_key(number) {
                    message = message.with_ordering_key(key.to_string());
                }
                if is_keyed {
                    return message.with_publish_key(number.to_string(), Duration::from_secs(3600));
                }
                message
            };
            self.record.note(Event::Publishing(number));
            let mut published = streams.publish(STREAM, message()).await;
            while is_keyed && published.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
                published = streams.publish(STREAM, message()).await;
            }
            match published {
                Ok(id) => self.record.note(Event::Accepted(number, id.as_u64())),
                Err(error) if error.may_have_been_done() => {}
                Err(error) => {
                    let is_expected = matches!(error, Error::Backend(_) | Error::Full(_));
                    assert!(is_expected, "{error:?}");
                    self.record.note(Event::Refused(number));
                }
            }
            tokio::time::sleep(Duration::from_micros(fastrand::u64(..4000))).await;
        }
    }

    /// Handles a message, and notes that it was called and, if it was not cut short, that it has ended.
    async fn handle(
        &self,
        group: usize,
        message: Message,
        effects: Option<&Effects>,
    ) -> Result<(), HandlerError> {
        let call = Call {
            group,
            id: message.id.as_u64(),
            attempt: message.attempt,
            number: std::str::from_utf8(&message.payload)?.parse()?,
        };
        self.record.note(Event::Called(call, now()));
        let responding = AssertUnwindSafe(self.respond(call, &message, effects));
        let result = responding.catch_unwind().await;
        self.record.note(Event::Ended(call));
        result.unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Responds to a message in one of many ways, which its number and attempt decide.
    async fn respond(
        &self,
        call: Call,
        message: &Message,
        effects: Option<&Effects>,
    ) -> Result<(), HandlerError> {
        match (call.number * 31 + u64::from(call.attempt) * 17 + call.group as u64) % 40 {
            0..3 => return Err(HandlerError::retry("again")),
            3 => return Err(HandlerError::retry_after(Duration::ZERO, "at once")),
            4 => return Err(HandlerError::skip_retry("never")),
            5 => panic!("the handler panics"),
            6 => std::future::pending().await,
            7..10 => tokio::time::sleep(Duration::from_millis(100)).await,
            way @ 10..15 => {
                if let Some(effects) = effects {
                    let end = if way == 10 {
                        End::Rollback
                    } else {
                        End::Commit
                    };
                    return Ok(effects.apply(call.group, message, end).await?);
                }
                tokio::task::yield_now().await;
            }
            _ => tokio::task::yield_now().await,
        }
        self.record.note(Event::Succeeded(call, now()));
        Ok(())
    }

    /// Members that come and go.
    async fn consume(self: &Arc<Self>, opened: &Opened, group: usize, is_done: &AtomicBool) {
        while !is_done.load(Ordering::Relaxed) {
            if fastrand::bool() {
                self.pull(opened, group, is_done).await;
                continue;
            }
            let shared = (Arc::clone(self), opened.effects.clone());
            let handler = move |message: Message| {
                let (history, effects) = shared.clone();
                async move { history.handle(group, message, effects.as_ref()).await }
            };
            let Ok(consumer) = opened
                .streams
                .subscribe(STREAM, GROUPS[group], options(group), handler)
                .await
            else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let stay = Duration::from_millis(fastrand::u64(200..1500));
            tokio::time::sleep(stay).await;
            if fastrand::bool() {
                consumer.pause();
            }
            let _: CloseReport = consumer.close().await;
        }
    }

    /// Takes messages for a while, and handles them elsewhere.
    async fn pull(self: &Arc<Self>, opened: &Opened, group: usize, is_done: &AtomicBool) {
        let pulling = opened.streams.pull(STREAM, GROUPS[group], options(group));
        let Ok(mut messages) = pulling.await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            return;
        };
        let until = Instant::now() + Duration::from_millis(fastrand::u64(200..1500));
        // What is left of these tasks is aborted, which drops their messages.
        let mut handling = JoinSet::new();
        while let Ok(Some(pulled)) = timeout_at(until, messages.next()).await {
            let (history, effects) = (Arc::clone(self), opened.effects.clone());
            handling.spawn(async move {
                let message = pulled.message.clone();
                let result = history.handle(group, message, effects.as_ref()).await;
                // Its time may be up.
                drop(pulled.settle(result));
            });
            if is_done.load(Ordering::Relaxed) {
                break;
            }
        }
        if fastrand::bool() {
            drop(messages);
        } else {
            messages.consumer().close().await;
        }
    }

    /// Everything else that may be called. What it returns is of no interest, and errors are expected
    /// while the server is broken.
    async fn operate(&self, streams: &Streams) {
        let scratch = format!("scratch{}", fastrand::u32(..));
        let few = Retention::default().with_max_len(10);
        let message = || NewMessage::new("scratch");
        while !self.is_over() {
            match fastrand::u32(..15) {
                0 => drop(streams.stats(STREAM).await),
                1 => drop(streams.pending(STREAM, GROUPS[0], None, 100).await),
                2 => drop(streams.members(STREAM, GROUPS[1]).await),
                3 => drop(streams.list().await),
                4 => drop(streams.read(STREAM, None, 100).await),
                5 => drop(streams.trim().await),
                6 => drop(streams.publish(&scratch, message()).await),
                7 => drop(streams.delete_stream(&scratch).await),
                8 => drop(streams.seek(&scratch, "g", StartFrom::Earliest).await),
                9 => drop(streams.create_group(&scratch, "g", StartFrom::Latest).await),
                10 => drop(streams.delete_group(&scratch, "g").await),
                11 => drop(streams.set_retention(&scratch, few).await),
                12 => drop(streams.publish_batch(&scratch, vec![message(); 20]).await),
                13 => drop(bury(streams, &scratch).await),
                _ => drop(
                    streams
                        .redrive(&format!("{scratch}.dead"), Redrive::default())
                        .await,
                ),
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(..20))).await;
        }
    }
}

/// The time, by a clock that all processes share.
fn now() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

/// Makes dead letters for a moment.
async fn bury(streams: &Streams, stream: &str) -> Result<CloseReport, Error> {
    let handler = |_: Vec<Message>| async { Err(HandlerError::skip_retry("buried").into()) };
    let consumer = streams.subscribe_batch(stream, "g", options(0), handler);
    let consumer = consumer.await?;
    tokio::time::sleep(Duration::from_millis(20)).await;
    Ok(consumer.close().await)
}
