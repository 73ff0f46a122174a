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

use metrics::{Key, Label, Level, Metadata};

use crate::panics::catch;
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
/// Label: why publishing failed. `closed`, `backend` or `outcome_unknown`.
pub const ERROR_TYPE: &str = "error.type";
/// Label: what the mailbox does when it is full. `drop_oldest`, `drop_newest` or `wait`.
pub const OVERFLOW: &str = "tidings.pubsub.overflow";

/// The keys are made once: in memory a message is published in less time than it takes to make one.
static PUBLISHED_KEY: Key = Key::from_static_name(PUBLISHED);
static DELIVERED_KEY: Key = Key::from_static_name(DELIVERED);
static LAGGED_KEY: Key = Key::from_static_name(LAGGED);
static OLDEST: [Label; 1] = [Label::from_static_parts(OVERFLOW, "drop_oldest")];
static NEWEST: [Label; 1] = [Label::from_static_parts(OVERFLOW, "drop_newest")];
static WAITING: [Label; 1] = [Label::from_static_parts(OVERFLOW, "wait")];
static DROPPED_OLDEST: Key = Key::from_static_parts(DROPPED, &OLDEST);
static DROPPED_NEWEST: Key = Key::from_static_parts(DROPPED, &NEWEST);
static DROPPED_WAITING: Key = Key::from_static_parts(DROPPED, &WAITING);
static METADATA: Metadata<'static> =
    Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// Counts a call of `publish`.
pub(crate) fn published(result: &Result<(), Error>) {
    match result {
        Ok(()) => count(&PUBLISHED_KEY, 1),
        Err(error) => {
            catch(|| metrics::counter!(PUBLISHED, ERROR_TYPE => error.kind()).increment(1));
        }
    }
}

/// Counts what a subscriber is given.
pub(crate) fn received(received: &Received) {
    match received {
        Received::Message(_) => count(&DELIVERED_KEY, 1),
        Received::Lagged(_) => count(&LAGGED_KEY, 1),
    }
}

/// Counts messages that found no room.
pub(crate) fn dropped(messages: usize, overflow: Overflow) {
    if messages > 0 {
        let key = match overflow {
            Overflow::DropOldest => &DROPPED_OLDEST,
            Overflow::DropNewest => &DROPPED_NEWEST,
            Overflow::Wait(_) => &DROPPED_WAITING,
        };
        count(key, messages as u64);
    }
}

/// Counts a connection that was made again.
#[cfg(any(feature = "postgres", feature = "redis"))]
pub(crate) fn reconnected() {
    catch(|| metrics::counter!(RECONNECTS).increment(1));
}

fn count(key: &'static Key, number: u64) {
    catch(|| {
        let counter = metrics::with_recorder(|recorder| recorder.register_counter(key, &METADATA));
        counter.increment(number);
    });
}
