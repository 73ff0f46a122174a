//! Names of the metrics. They go to the recorder of the [`metrics`] crate that the program has installed,
//! if any:
//!
//! | name | counts | labels |
//! |---|---|---|
//! | [`PUBLISHED`] | calls of `publish` that have returned, on the brokers of this package | [`ERROR_TYPE`] if it failed |
//! | [`DELIVERED`] | messages given to subscribers and handlers: one message to three counts three times | |
//! | [`DROPPED`] | messages that found no room in a mailbox | [`OVERFLOW`] |
//! | [`LAGGED`] | reports of missing messages ([`Lagged`](crate::Lagged)) given to subscribers and handlers | |
//! | [`RECONNECTS`] | connections for listening that were made again after one was lost | |
//!
//! A message without subscribers is published and nothing else. Topics are no labels: there may be as many
//! as a program has users.

use crate::{Error, Overflow, Received};

/// Counter of calls of `publish`.
pub const PUBLISHED: &str = "tidings.pubsub.published";
/// Counter of messages given to subscribers.
pub const DELIVERED: &str = "tidings.pubsub.delivered";
/// Counter of messages that found no room.
pub const DROPPED: &str = "tidings.pubsub.dropped";
/// Counter of reports of missing messages given to subscribers.
pub const LAGGED: &str = "tidings.pubsub.lagged";
/// Counter of connections that were made again.
pub const RECONNECTS: &str = "tidings.pubsub.reconnects";
/// Label: why publishing failed. `closed`, `backend` or `unanswered`.
pub const ERROR_TYPE: &str = "error.type";
/// Label: what the mailbox does when it is full. `drop_oldest`, `drop_newest` or `wait`.
pub const OVERFLOW: &str = "tidings.pubsub.overflow";

/// Counts a call of `publish`.
pub(crate) fn published(result: &Result<(), Error>) {
    match result {
        Ok(()) => metrics::counter!(PUBLISHED).increment(1),
        Err(error) => metrics::counter!(PUBLISHED, ERROR_TYPE => error.kind()).increment(1),
    }
}

/// Counts what a subscriber is given.
pub(crate) fn received(received: &Received) {
    match received {
        Received::Message(_) => metrics::counter!(DELIVERED).increment(1),
        Received::Lagged(_) => metrics::counter!(LAGGED).increment(1),
    }
}

/// Counts messages that found no room.
pub(crate) fn dropped(messages: usize, overflow: Overflow) {
    if messages > 0 {
        let overflow = match overflow {
            Overflow::DropOldest => "drop_oldest",
            Overflow::DropNewest => "drop_newest",
            Overflow::Wait(_) => "wait",
        };
        metrics::counter!(DROPPED, OVERFLOW => overflow).increment(messages as u64);
    }
}

/// Counts a connection that was made again.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) fn reconnected() {
    metrics::counter!(RECONNECTS).increment(1);
}
