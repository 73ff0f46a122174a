//! What a stream sends next, over either transport.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use tidings_notify::presence::Registration;
use tidings_notify::wire::{Bye, MAX_BATCH, MAX_BATCH_BYTES};
use tidings_notify::{EventId, Hello, Item, Subscription};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::event_loop::Leave;
use crate::access::{Due, Validity};
use crate::connections::IdleSocket;
use crate::permits::Permit;

/// A user's stream: the subscription, its permit, its presence, and what interrupts it: silence, and the stop of
/// the server.
#[derive(Debug)]
pub(crate) struct Feed {
    subscription: Subscription,
    ping_interval: Duration,
    ping_at: Instant,
    stopping: CancellationToken,
    /// How long the client's permission lasts.
    validity: Validity,
    /// The server stops, and the last batch has been taken.
    is_last: bool,
    confirmation: Confirmation,
    /// Whether events were taken that are not confirmed.
    has_unconfirmed: bool,
    _permit: Permit,
    /// Its user is online while the stream is open.
    _registration: Registration,
}

/// When an event counts as sent, so that it is no longer undelivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confirmation {
    /// When it has been written to the socket.
    Written,
    /// When the client has acknowledged it.
    Acknowledged,
}

/// The next thing to send.
#[derive(Debug)]
pub(crate) enum Step {
    /// Events, and control items between them.
    Items(Vec<Item>),
    /// Nothing was sent for the ping interval; the connection must be kept alive.
    Ping,
    /// The client's permission ends at this time.
    Expiring(Timestamp),
    /// The stream ends: send `bye`.
    End(Bye),
}

/// What a stream sends before others are served.
const STEPS_AT_ONCE: usize = 4;

/// How long a client may block a write after the end of its permission. It is more than a client may take to agree to a
/// close.
const OVER_TIMEOUT: Duration = Duration::from_secs(3);

/// A stream that writes the steps of its feed as its client reads them.
pub(crate) trait Encoding {
    fn feed(&mut self) -> &mut Feed;

    /// A step as it goes over the connection. `None` if it is not sent where the stream waits: what ends it, and what
    /// cannot be encoded.
    fn encode(&mut self, step: &Step) -> Option<Bytes>;
}

/// Sends the next steps, as far as the socket takes them at once. Ready when the stream has to go on elsewhere.
pub(crate) fn poll_steps(
    stream: &mut impl Encoding,
    socket: &IdleSocket,
    context: &mut Context<'_>,
) -> Poll<Leave> {
    for _ in 0..STEPS_AT_ONCE {
        let Poll::Ready(step) = stream.feed().poll_step(context) else {
            return stream.feed().poll_leave();
        };
        let Some(bytes) = stream.encode(&step) else {
            return Poll::Ready(Leave::Step(step));
        };
        drop(step);
        if !bytes.is_empty() {
            stream.feed().put_off_ping();
        }
        match socket.write_at_once(&bytes) {
            Ok(written) if written < bytes.len() => {
                return Poll::Ready(Leave::Unsent(bytes.slice(written..)));
            }
            Ok(_) => stream.feed().confirm_written(),
            Err(error) => return Poll::Ready(Leave::Failed(error)),
        }
    }
    context.waker().wake_by_ref();
    Poll::Pending
}

impl Feed {
    pub(crate) fn new(
        subscription: Subscription,
        permit: Permit,
        registration: Registration,
        confirmation: Confirmation,
        ping_interval: Duration,
        stopping: CancellationToken,
        validity: Validity,
    ) -> Self {
        Self {
            subscription,
            ping_interval,
            ping_at: Instant::now() + ping_interval,
            stopping,
            validity,
            is_last: false,
            confirmation,
            has_unconfirmed: false,
            _permit: permit,
            _registration: registration,
        }
    }

    pub(crate) fn subscription(&self) -> &Subscription {
        &self.subscription
    }

    /// Takes where the stream began.
    pub(crate) fn take_hello(&mut self) -> Option<Hello> {
        self.subscription.take_hello()
    }

    /// Pings from now on at another pace, and at once.
    pub(crate) fn ping_every(&mut self, interval: Duration) {
        self.ping_interval = interval;
        self.ping_at = Instant::now();
    }

    /// When the next ping is due if nothing else is sent.
    pub(crate) fn ping_at(&self) -> Instant {
        self.ping_at
    }

    /// Records that something is sent. Items need not be: not every stream has a form for each.
    pub(crate) fn put_off_ping(&mut self) {
        self.ping_at = Instant::now() + self.ping_interval;
    }

    /// Whether the client's permission has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.validity.is_over()
    }

    /// Waits until the client's permission has ended, and for a moment more, in which a client that reads gets its
    /// `bye`. A write that waits longer is given up: the client would decide how long its stream is open.
    pub(crate) fn outlasted(&self) -> impl Future<Output = ()> + Send + use<> {
        let over = self.validity.over();
        async move {
            over.await;
            sleep(OVER_TIMEOUT).await;
        }
    }

    /// Waits for the next thing to send.
    ///
    /// Cancel safe: a dropped call takes nothing from the stream.
    pub(crate) async fn step(&mut self) -> Step {
        let stopping = self.stopping.clone();
        let (mut stopped, mut ping) = (pin!(stopping.cancelled()), pin!(sleep_until(self.ping_at)));
        poll_fn(|context| {
            // The feed sees by itself whether one of them is due.
            let _woken =
                stopped.as_mut().poll(context).is_ready() || ping.as_mut().poll(context).is_ready();
            self.poll_step(context)
        })
        .await
    }

    /// The next thing to send. The task of the last poll is woken when there is something, but for the ping, and for
    /// the stop of the server: then the caller has to poll.
    ///
    /// Once the server stops, a reader is given what is there, one batch of it, and then the end. Its
    /// cursor is what makes that safe: it resumes after that batch.
    fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        if self.is_last {
            return Poll::Ready(Step::End(Bye::stopping()));
        }
        // Nothing is sent after the end of a permission. Events that are already there are sent before the `bye` of
        // a stop.
        let step = if let Poll::Ready(due) = self.validity.poll_due(context) {
            match due {
                Due::Warning(at) => Step::Expiring(at),
                Due::Expired => return Poll::Ready(Step::End(Bye::expired())),
                Due::Revoked => return Poll::Ready(Step::End(Bye::revoked())),
            }
        } else if let Poll::Ready(items) =
            self.subscription
                .poll_next_batch(context, MAX_BATCH, MAX_BATCH_BYTES)
        {
            match items {
                Ok(items) => Step::Items(items),
                Err(_closed) => Step::End(Bye::stopping()),
            }
        } else if self.stopping.is_cancelled() {
            Step::End(Bye::stopping())
        } else if self.ping_at <= Instant::now() {
            Step::Ping
        } else {
            return Poll::Pending;
        };
        self.is_last = self.stopping.is_cancelled();
        if let Step::Items(items) = &step {
            self.has_unconfirmed |= items.iter().any(|item| matches!(item, Item::Event(_)));
        } else {
            self.put_off_ping();
        }
        Poll::Ready(step)
    }

    /// Ready if the stream, which has nothing to send now, reads the database.
    fn poll_leave(&self) -> Poll<Leave> {
        if self.subscription.is_reading() {
            Poll::Ready(Leave::Reads)
        } else {
            Poll::Pending
        }
    }

    /// Records that everything that was taken has been written to the socket.
    pub(crate) fn confirm_written(&mut self) {
        if std::mem::take(&mut self.has_unconfirmed) && self.confirmation == Confirmation::Written {
            self.subscription.sent(self.subscription.cursor());
        }
    }

    /// Whether the stream began after this event, or has given it.
    pub(crate) fn has_given(&self, id: EventId) -> bool {
        let cursor = self.subscription.cursor();
        id.epoch == cursor.epoch && id.seq <= cursor.seq
    }

    /// Records that the client has everything up to this event. From the first acknowledgement on,
    /// what was only written counts as undelivered.
    pub(crate) fn acknowledge(&mut self, id: EventId) {
        self.confirmation = Confirmation::Acknowledged;
        self.subscription.sent(id);
    }
}
