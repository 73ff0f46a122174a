//! What a stream sends next, whatever its transport.

use std::time::Duration;

use tidings_notify::{EventId, Item, Subscription};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::CancellationToken;

use super::seats::Seat;

/// Most items that go out in one write. More would only make the first of them wait.
const MAX_BATCH: usize = 128;

/// A user's stream: the subscription, its place, and the two things that interrupt it, silence and
/// the server's stop.
#[derive(Debug)]
pub(crate) struct Feed {
    subscription: Subscription,
    ping_interval: Duration,
    ping: std::pin::Pin<Box<Sleep>>,
    stopping: CancellationToken,
    /// The newest event of the batch that was handed out last.
    handed_out: Option<EventId>,
    _seat: Seat,
}

/// The next thing to send.
#[derive(Debug)]
pub(crate) enum Step {
    /// Events and what belongs between them.
    Items(Vec<Item>),
    /// Nothing happened for a while; the connection must be kept alive.
    Ping,
    /// The server stops: say farewell and end.
    Stop,
}

impl Feed {
    pub(crate) fn new(
        subscription: Subscription,
        seat: Seat,
        ping_interval: Duration,
        stopping: CancellationToken,
    ) -> Self {
        Self {
            subscription,
            ping_interval,
            ping: Box::pin(tokio::time::sleep(ping_interval)),
            stopping,
            handed_out: None,
            _seat: seat,
        }
    }

    pub(crate) fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// Waits for the next thing to send. Asking again says that the last batch has been written.
    ///
    /// Cancel safe: a dropped call takes nothing from the stream.
    pub(crate) async fn step(&mut self) -> Step {
        if let Some(id) = self.handed_out.take() {
            self.subscription.sent(id);
        }
        let step = tokio::select! {
            // Events that are already there go out before the farewell.
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
