//! What a stream sends next, over either transport.

use std::time::Duration;

use tidings_notify::{EventId, Item, Subscription};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use crate::permits::Permit;

/// Maximum number of items in one write. More would only delay the first of them.
const MAX_BATCH: usize = 128;

/// A user's stream: the subscription, its permit, and what interrupts it: silence, and the stop of
/// the server.
#[derive(Debug)]
pub(crate) struct Feed {
    subscription: Subscription,
    ping_interval: Duration,
    ping: std::pin::Pin<Box<Sleep>>,
    stopping: CancellationToken,
    /// The newest event of the batch that was handed out last.
    handed_out: Option<EventId>,
    _permit: Permit,
}

/// The next thing to send.
#[derive(Debug)]
pub(crate) enum Step {
    /// Events, and control items between them.
    Items(Vec<Item>),
    /// Nothing was sent for the ping interval; the connection must be kept alive.
    Ping,
    /// The server stops: send `bye` and end.
    Stop,
}

impl Feed {
    pub(crate) fn new(
        subscription: Subscription,
        permit: Permit,
        ping_interval: Duration,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            subscription,
            ping_interval,
            ping: Box::pin(tokio::time::sleep(ping_interval)),
            stopping,
            handed_out: None,
            _permit: permit,
        }
    }

    pub(crate) fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// Waits for the next thing to send. The next call confirms that the last batch was written.
    ///
    /// Cancel safe: a dropped call takes nothing from the stream.
    pub(crate) async fn step(&mut self) -> Step {
        if let Some(id) = self.handed_out.take() {
            self.subscription.sent(id);
        }
        let step = tokio::select! {
            // Events that are already there are sent before the `bye`.
            biased;
            items = self.subscription.next_batch(MAX_BATCH) => match items {
                Ok(items) => Step::Items(items),
                Err(_closed) => Step::Stop,
            },
            () = self.stopping.cancelled() => Step::Stop,
            () = &mut self.ping => Step::Ping,
        };
        self.ping
            .as_mut()
            .reset(Instant::now() + self.ping_interval);
        if let Step::Items(items) = &step {
            self.handed_out = items.iter().rev().find_map(|item| match item {
                Item::Event(event) => Some(event.id),
                _ => None,
            });
        }
        step
    }
}
