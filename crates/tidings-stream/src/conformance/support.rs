//! What the behaviours are tested with.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::engine::{ConsumerKey, Engine, GroupKey};
use crate::{
    Consumer, Context, GroupName, Handler, HandlerError, Message, NewMessage, ServiceConfig,
    StartFrom, Streams, SubscribeOptions,
};

/// Longest wait for what is to happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// A poll interval that no test lives to see.
pub(super) const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

pub(super) fn streams(engine: Arc<dyn Engine>) -> Streams {
    Streams::new(engine, ServiceConfig::default())
}

/// Options that read everything and poll often.
pub(super) fn from_start() -> SubscribeOptions {
    SubscribeOptions::default()
        .with_start(StartFrom::Earliest)
        .with_poll_interval(Duration::from_millis(20))
}

pub(super) fn key(streams: &Streams, stream: &str, group: &str) -> GroupKey {
    GroupKey {
        stream: streams.name(stream).unwrap(),
        group: GroupName::new(group).unwrap(),
    }
}

/// A consumer that claims in a group.
pub(super) fn some_consumer(group: &GroupKey) -> ConsumerKey {
    ConsumerKey {
        group: group.clone(),
        consumer: "one".into(),
    }
}

/// Messages whose payloads are the numbers from 1.
pub(super) fn numbered(count: u64) -> Vec<NewMessage> {
    (1..=count)
        .map(|number| NewMessage::new(number.to_string()))
        .collect()
}

pub(super) fn number(message: &Message) -> u64 {
    std::str::from_utf8(&message.payload)
        .unwrap()
        .parse()
        .unwrap()
}

/// Waits for something, but not for ever.
pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it happens within a minute")
}

/// Asks again and again until the reply is yes.
pub(super) async fn until<F, Fut>(mut question: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    soon(async {
        while !question().await {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// Waits until the claims of everything that is claimed in the group `g` of the stream `s` have been extended so
/// many times, each of which is due after a third of the visibility timeout.
pub(super) async fn extended(streams: &Streams, times: u32) {
    let left = || async {
        let pending = streams.pending("s", "g", None, 100).await.unwrap();
        let left = pending.iter().map(|message| message.due_in).min();
        left.expect("something is claimed")
    };
    soon(async {
        let (mut before, mut extensions) = (left().await, 0);
        while extensions < times {
            tokio::time::sleep(Duration::from_millis(2)).await;
            let now = left().await;
            extensions += u32::from(now > before);
            before = now;
        }
    })
    .await;
}

/// A handler that acknowledges everything and passes it on.
#[derive(Debug, Clone)]
pub(super) struct Recorder(mpsc::Sender<Message>);

/// What a [`Recorder`] passed on.
#[derive(Debug)]
pub(super) struct Seen(mpsc::Receiver<Message>);

pub(super) fn recorder() -> (Recorder, Seen) {
    let (sender, receiver) = mpsc::channel(1 << 14);
    (Recorder(sender), Seen(receiver))
}

impl Recorder {
    pub(super) async fn note(&self, message: Message) {
        // The test may have seen enough and gone on.
        drop(self.0.send(message).await);
    }
}

impl Handler for Recorder {
    async fn handle(&self, message: Message, _: Context) -> Result<(), HandlerError> {
        self.note(message).await;
        Ok(())
    }
}

impl Seen {
    pub(super) async fn next(&mut self) -> Message {
        soon(self.0.recv()).await.expect("a consumer is running")
    }

    pub(super) async fn take(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::with_capacity(count);
        for _ in 0..count {
            messages.push(self.next().await);
        }
        messages
    }

    pub(super) async fn numbers(&mut self, count: usize) -> Vec<u64> {
        self.take(count).await.iter().map(number).collect()
    }

    /// What came besides, once every recorder has gone.
    pub(super) async fn rest(mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        while let Some(message) = soon(self.0.recv()).await {
            messages.push(message);
        }
        messages
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.0.is_empty()
    }
}

/// Everything a stream holds, read by a group of its own.
pub(super) async fn contents(streams: &Streams, stream: &str) -> Vec<Message> {
    let count = streams.stats(stream).await.unwrap().messages;
    let (recorder, mut seen) = recorder();
    let consumer = subscribe(streams, stream, "contents", from_start(), recorder).await;
    let messages = seen.take(usize::try_from(count).unwrap()).await;
    consumer.close().await;
    assert!(streams.delete_group(stream, "contents").await.unwrap());
    messages
}

pub(super) async fn subscribe(
    streams: &Streams,
    stream: &str,
    group: &str,
    options: SubscribeOptions,
    handler: impl Handler,
) -> Consumer {
    streams
        .subscribe(stream, group, options, handler)
        .await
        .unwrap()
}
