//! Notifying other processes that streams have something new, and hearing it from them.
//!
//! A notification is sent by a transaction of its own, after the one that it is about: the server
//! commits transactions that notify one after the other. Streams that get messages within some
//! milliseconds share a notification.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tidings_postgres::{Config, Connections, Error as DatabaseError, Heard, params};
use tokio::sync::Notify;

use super::rows::{rows, value};
use crate::engine::Wakes;
use crate::{Result, StreamName};

/// Shortest time between two transactions that notify.
const PAUSE: Duration = Duration::from_millis(5);

/// Most streams that one transaction names. Beyond that it notifies of all.
const MAX_STREAMS: usize = 256;

/// What comes between the parts of a notification, and is in no name.
const SEPARATOR: char = '\n';

/// A notification that any stream may have something new.
const ALL: &str = "*";

/// A notification that the outbox has something.
const OUTBOX: &str = "outbox";

const NOTIFY: &str = "SELECT count(pg_notify($1, payload)) FROM unnest($2::text[]) AS payload";

/// Takes note of what is to be announced. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Announcer {
    streams: Arc<Mutex<BTreeSet<StreamName>>>,
    news: Arc<Notify>,
    sender: Arc<str>,
}

impl Announcer {
    pub(super) fn new() -> Self {
        Self {
            streams: Arc::default(),
            news: Arc::default(),
            sender: format!("{:016x}", fastrand::u64(..)).into(),
        }
    }

    /// Has a stream announced.
    pub(super) fn announce(&self, stream: &StreamName) {
        let mut streams = self.streams.lock();
        // One more than can be named means all of them.
        if streams.len() <= MAX_STREAMS {
            streams.insert(stream.clone());
        }
        drop(streams);
        self.news.notify_one();
    }

    /// What its notifications begin with, so that it can ignore its own.
    pub(super) fn sender(&self) -> Arc<str> {
        Arc::clone(&self.sender)
    }

    /// Announces for as long as it is polled.
    pub(super) async fn run(self, connections: Arc<Connections>, channel: String) {
        loop {
            self.news.notified().await;
            let streams = std::mem::take(&mut *self.streams.lock());
            let payloads = payloads(&self.sender, &streams);
            match rows(&connections, NOTIFY, params![channel, payloads]).await {
                Ok(_) => {}
                Err(DatabaseError::Closed) => return,
                Err(error) => {
                    // Polling finds the messages.
                    let error: &dyn std::error::Error = &error;
                    tracing::debug!(
                        error,
                        "failed to notify other processes of new messages, which find them by polling"
                    );
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The name of the channel.
pub(super) async fn channel(connections: &Connections) -> Result<String> {
    value(connections, "SELECT tidings_stream_channel()", &[]).await
}

/// The notifications for some streams.
fn payloads(sender: &str, streams: &BTreeSet<StreamName>) -> Vec<String> {
    let payload = |name: &str| format!("{sender}{SEPARATOR}{name}");
    if streams.len() > MAX_STREAMS {
        return vec![payload(ALL)];
    }
    let names = streams.iter().map(StreamName::as_str);
    names.map(payload).collect()
}

/// Listens for as long as it is polled. Notifications of the sender `own` are ignored.
pub(super) async fn keep_listening(
    config: Config,
    channel: String,
    wakes: Wakes,
    outbox: Arc<Notify>,
    own: Arc<str>,
) {
    let hear = |heard: Heard<'_>| match heard {
        // Notifications of the time in between are lost.
        Heard::Connected => {
            wakes.wake_all();
            outbox.notify_one();
        }
        Heard::Notification(payload) => match read(payload, &own) {
            News::Stream(stream) => wakes.wake(&stream),
            News::All => wakes.wake_all(),
            News::Outbox => outbox.notify_one(),
            News::Nothing => {}
        },
    };
    match config.keep_listening(&channel, "streams", hear).await {}
}

/// What a notification says.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// This stream has something new.
    Stream(StreamName),
    /// Any stream may have.
    All,
    /// The outbox has.
    Outbox,
    /// It is one's own, or none of these.
    Nothing,
}

/// Reads a notification. Those of the sender `own` are ignored.
fn read(payload: &str, own: &str) -> News {
    if payload == OUTBOX {
        return News::Outbox;
    }
    match payload.split_once(SEPARATOR) {
        Some((sender, _)) if sender == own => News::Nothing,
        Some((_, ALL)) => News::All,
        Some((_, name)) => name.parse().map_or(News::Nothing, News::Stream),
        None => News::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(count: usize) -> BTreeSet<StreamName> {
        let name = |number| StreamName::new("Äpp", "n", &format!("{number}")).unwrap();
        (0..count).map(name).collect()
    }

    #[test]
    fn every_stream_is_announced_to_others() {
        for count in [1, 3, MAX_STREAMS] {
            let streams = streams(count);
            let payloads = payloads("me", &streams);
            let read = |own| payloads.iter().map(move |payload| read(payload, own));
            assert!(read("me").all(|news| news == News::Nothing));
            assert!(read("you").eq(streams.into_iter().map(News::Stream)));
        }
    }

    #[test]
    fn more_streams_than_can_be_named_are_all() {
        let many = payloads("me", &streams(MAX_STREAMS + 1));
        assert_eq!(many.len(), 1);
        assert_eq!(read(&many[0], "you"), News::All);
    }

    #[test]
    fn the_longest_name_fits_into_a_notification() {
        let part = "x".repeat(crate::MAX_NAME_BYTES);
        let stream = StreamName::new(&part, &part, &part).unwrap();
        // PostgreSQL takes less than 8000 bytes.
        assert!(payloads(&"x".repeat(16), &BTreeSet::from([stream]))[0].len() < 8000);
    }

    #[test]
    fn what_strangers_send_is_nothing() {
        assert_eq!(read("", "me"), News::Nothing);
        assert_eq!(read("hello", "me"), News::Nothing);
        assert_eq!(read("x\nno name", "me"), News::Nothing);
        assert_eq!(read(OUTBOX, "me"), News::Outbox);
    }
}
