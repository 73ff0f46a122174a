//! Notifying other processes that streams have something new.
//!
//! A notification is sent by a transaction of its own, after the one that it is about: the server
//! commits transactions that notify one after the other. Streams that get messages within some
//! milliseconds share a notification.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tidings_postgres::tokio_postgres::types::Type;
use tidings_postgres::{Connections, Error};
use tokio::sync::Notify;

use super::failure;
use crate::StreamName;

/// Shortest time between two transactions that notify.
const PAUSE: Duration = Duration::from_millis(5);

/// Longest notification, in bytes: PostgreSQL takes less than 8000.
const MAX_BYTES: usize = 7900;

/// Most streams that one transaction names. Beyond that it notifies of all.
const MAX_STREAMS: usize = 256;

/// What comes between the parts of a notification, and is in no name.
const SEPARATOR: char = '\n';

/// A notification that any stream may have something new.
const ALL: &str = "*";

/// A notification that the outbox has something.
pub(super) const OUTBOX: &str = "outbox";

const NOTIFY: &str = "SELECT count(pg_notify($1, payload)) FROM unnest($2::text[]) AS payload";

/// Takes note of what is to be announced. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Announcer {
    streams: Arc<Mutex<BTreeSet<StreamName>>>,
    news: Arc<Notify>,
    sender: Arc<str>,
}

/// An announcer, and the task that announces.
pub(super) fn announcer(
    connections: Arc<Connections>,
    channel: String,
) -> (Announcer, impl Future<Output = ()> + Send) {
    let announcer = Announcer {
        streams: Arc::default(),
        news: Arc::default(),
        sender: format!("{:016x}", fastrand::u64(..)).into(),
    };
    let task = announce_all(announcer.clone(), connections, channel);
    (announcer, task)
}

impl Announcer {
    /// Has a stream announced.
    pub(super) fn announce(&self, stream: &StreamName) {
        let mut streams = self.lock();
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

    fn lock(&self) -> MutexGuard<'_, BTreeSet<StreamName>> {
        // The set is whole after every statement, so a panic elsewhere leaves nothing half-done.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name of the channel.
pub(super) async fn channel(connections: &Connections) -> Result<String, crate::Error> {
    let row = connections
        .row("SELECT tidings_stream_channel()", &[])
        .await?;
    row.try_get(0).map_err(failure::column)
}

async fn announce_all(announcer: Announcer, connections: Arc<Connections>, channel: String) {
    loop {
        announcer.news.notified().await;
        let streams = std::mem::take(&mut *announcer.lock());
        let payloads = payloads(&announcer.sender, &streams);
        let parameters = [
            (&channel as _, Type::TEXT),
            (&payloads as _, Type::TEXT_ARRAY),
        ];
        match connections.query(NOTIFY, &parameters).await {
            Ok(_) => {}
            Err(Error::Closed) => return,
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

/// The notifications for some streams.
fn payloads(sender: &str, streams: &BTreeSet<StreamName>) -> Vec<String> {
    if streams.len() > MAX_STREAMS {
        return vec![format!("{sender}{SEPARATOR}{ALL}")];
    }
    let mut payloads: Vec<String> = Vec::new();
    for stream in streams {
        let name = stream.as_str();
        match payloads.last_mut() {
            Some(last) if last.len() + 1 + name.len() <= MAX_BYTES => {
                last.push(SEPARATOR);
                last.push_str(name);
            }
            // A name that is too long for any notification, which a dead letter's dead letter may
            // come to have.
            _ if sender.len() + 1 + name.len() > MAX_BYTES => {
                return vec![format!("{sender}{SEPARATOR}{ALL}")];
            }
            _ => payloads.push(format!("{sender}{SEPARATOR}{name}")),
        }
    }
    payloads
}

/// What a notification says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    /// These streams have something new.
    Streams(Vec<StreamName>),
    /// Any stream may have.
    All,
    /// The outbox has.
    Outbox,
    /// It is one's own, or none of these.
    Nothing,
}

/// Reads a notification. Those of the sender `own` are ignored.
pub(super) fn read(payload: &str, own: &str) -> News {
    if payload == OUTBOX {
        return News::Outbox;
    }
    match payload.split_once(SEPARATOR) {
        None => News::Nothing,
        Some((sender, _)) if sender == own => News::Nothing,
        Some((_, ALL)) => News::All,
        Some((_, names)) => {
            let names = names.split(SEPARATOR).map(str::parse);
            News::Streams(names.filter_map(Result::ok).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(count: usize, length: usize) -> BTreeSet<StreamName> {
        (0..count)
            .map(|number| StreamName::new("Äpp", "n", &format!("{number:0length$}")).unwrap())
            .collect()
    }

    #[test]
    fn every_stream_is_announced_in_notifications_that_fit() {
        for (count, length) in [(1, 1), (3, 255), (100, 255), (MAX_STREAMS, 10)] {
            let streams = streams(count, length);
            let payloads = payloads("me", &streams);
            let mut announced = BTreeSet::new();
            for payload in payloads {
                assert!(payload.len() < 8000);
                assert_eq!(read(&payload, "me"), News::Nothing);
                match read(&payload, "you") {
                    News::Streams(names) => announced.extend(names),
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(announced, streams);
        }
    }

    #[test]
    fn what_cannot_be_named_means_all() {
        let many = payloads("me", &streams(MAX_STREAMS + 1, 10));
        assert_eq!(many.len(), 1);
        assert_eq!(read(&many[0], "you"), News::All);
        let mut name = StreamName::new("a", "n", "s").unwrap();
        while name.as_str().len() < MAX_BYTES {
            name = name.dead_letter();
        }
        let long = payloads("me", &BTreeSet::from([name]));
        assert_eq!(read(&long[0], "you"), News::All);
    }

    #[test]
    fn what_strangers_send_is_nothing() {
        assert_eq!(read("", "me"), News::Nothing);
        assert_eq!(read("hello", "me"), News::Nothing);
        assert_eq!(read("x\nno name", "me"), News::Streams(Vec::new()));
        assert_eq!(read(OUTBOX, "me"), News::Outbox);
    }
}
