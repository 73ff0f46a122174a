//! Taking messages as they are asked for, instead of having a handler called with them.
//!
//! It is a consumer whose handler offers its message and waits for what becomes of it. So claims, extensions,
//! dead letters and closing are those of every consumer.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use futures_util::Stream;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::sleep;

use super::Consumer;
use crate::{Context, Error, Handler, HandlerError, Message, Result, SubscribeOptions};

/// The messages of a group as a [`Stream`]: see [`Streams::pull`](crate::Streams::pull).
///
/// It claims messages while something waits for one, and only as many as its
/// [concurrency](SubscribeOptions::with_concurrency) allows beside those that were taken and are not settled
/// yet. What was claimed and is not taken within a quarter of the visibility timeout is given back, with its
/// attempt not counted, and nothing is claimed until something waits again. The stream ends when its consumer
/// does. Dropping it closes the consumer.
#[derive(Debug)]
#[must_use = "dropping it closes its consumer"]
pub struct PulledMessages {
    consumer: Consumer,
    offers: mpsc::Receiver<Offer>,
}

/// A message that was taken from [`PulledMessages`], until it is settled.
///
/// It has the [time of a handler](SubscribeOptions::with_handler_timeout), by default the visibility timeout,
/// which begins anew each time it is [worked on](Self::still_working). One that is dropped, or not
/// settled in its time, is a failed attempt.
#[derive(Debug)]
#[must_use = "a message that is dropped is delivered again"]
pub struct PulledMessage {
    /// The message.
    pub message: Message,
    settled: oneshot::Sender<Result<(), HandlerError>>,
    /// Notified when its time is to begin anew.
    working: Arc<Notify>,
}

impl PulledMessages {
    pub(crate) fn new(consumer: Consumer, offers: mpsc::Receiver<Offer>) -> Self {
        Self { consumer, offers }
    }

    /// Waits for the next message. `None` means that the consumer has ended.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future loses no message.
    pub async fn next(&mut self) -> Option<PulledMessage> {
        let waiting = Waiting(self);
        std::future::poll_fn(|context| Pin::new(&mut *waiting.0).poll_next(context)).await
    }

    /// The consumer: its figures, its end, and closing. The stream pauses and resumes it.
    pub fn consumer(&self) -> &Consumer {
        &self.consumer
    }
}

/// Something that waits for a message. Nothing does any more when it is dropped.
struct Waiting<'a>(&'a mut PulledMessages);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.consumer.pause();
    }
}

impl Stream for PulledMessages {
    type Item = PulledMessage;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut TaskContext<'_>,
    ) -> Poll<Option<PulledMessage>> {
        loop {
            match self.offers.poll_recv(context) {
                Poll::Ready(Some(offer)) => {
                    if let Some(pulled) = offer.take() {
                        self.consumer.pause();
                        return Poll::Ready(Some(pulled));
                    }
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    self.consumer.resume();
                    return Poll::Pending;
                }
            }
        }
    }
}

impl PulledMessage {
    /// Settles the message as a [`Handler`] does that returns this: `Ok` acknowledges it, an error says when
    /// it is delivered again, if at all. The store records it a moment later.
    ///
    /// # Errors
    ///
    /// [`Error::ClaimLost`] if its time was up, or closing waited no longer: it is delivered again.
    pub fn settle(self, result: Result<(), HandlerError>) -> Result<()> {
        self.settled.send(result).map_err(|_| Error::ClaimLost)
    }

    /// Acknowledges the message.
    ///
    /// # Errors
    ///
    /// As for [`settle`](Self::settle).
    pub fn acknowledge(self) -> Result<()> {
        self.settle(Ok(()))
    }

    /// Asks for another attempt after a delay; zero means at once.
    ///
    /// # Errors
    ///
    /// As for [`settle`](Self::settle).
    pub fn retry_after(
        self,
        delay: Duration,
        reason: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Result<()> {
        self.settle(Err(HandlerError::retry_after(delay, reason)))
    }

    /// Sends the message to the dead letters now, whatever attempts are left.
    ///
    /// # Errors
    ///
    /// As for [`settle`](Self::settle).
    pub fn reject(self, reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Result<()> {
        self.settle(Err(HandlerError::skip_retry(reason)))
    }

    /// Says that the message is still worked on: its time begins anew, and its claim lasts as long.
    ///
    /// # Errors
    ///
    /// As for [`settle`](Self::settle).
    pub fn still_working(&self) -> Result<()> {
        if self.settled.is_closed() {
            return Err(Error::ClaimLost);
        }
        self.working.notify_one();
        Ok(())
    }
}

/// A message on its way to [`PulledMessages`].
#[derive(Debug)]
pub(crate) struct Offer {
    /// Either the stream takes it, or the handler that has offered it takes it back.
    message: Arc<Mutex<Option<Message>>>,
    settled: oneshot::Sender<Result<(), HandlerError>>,
    working: Arc<Notify>,
}

impl Offer {
    /// The message, unless it was taken back or its handler has ended.
    fn take(self) -> Option<PulledMessage> {
        let Self {
            message,
            settled,
            working,
        } = self;
        let message = message.lock().take();
        let message = message.filter(|_| !settled.is_closed())?;
        working.notify_one();
        Some(PulledMessage {
            message,
            settled,
            working,
        })
    }
}

/// The handler that offers its messages, and where they are offered.
pub(crate) fn offering(
    options: &SubscribeOptions,
    paused: watch::Sender<bool>,
) -> (impl Handler + use<>, mpsc::Receiver<Offer>) {
    let (sender, offers) = mpsc::channel(options.concurrency);
    let visibility = options.visibility_timeout;
    let limit = options.handler_timeout.unwrap_or(visibility);
    let handler = crate::with_context(move |message: Message, context: Context| {
        let (sender, paused) = (sender.clone(), paused.clone());
        async move {
            let untaken = Arc::new(Mutex::new(Some(message)));
            let working = Arc::new(Notify::new());
            let (settled, mut was_settled) = oneshot::channel();
            let offer = Offer {
                message: Arc::clone(&untaken),
                settled,
                working: Arc::clone(&working),
            };
            let closing = context.closing();
            let mut is_closing = false;
            let mut is_taken = false;
            // Before its claim has to be extended.
            let mut time = pin!(sleep(visibility / 4));
            // There is room for as many as there are handlers, unless what was taken back is in the way.
            let is_offered = tokio::select! {
                biased;
                sent = sender.send(offer) => sent.is_ok(),
                () = closing.cancelled() => false,
                () = &mut time => false,
            };
            if !is_offered {
                return Err(HandlerError::release());
            }
            loop {
                tokio::select! {
                    biased;
                    result = &mut was_settled => {
                        return result.unwrap_or_else(|_| Err(HandlerError::retry("the pulled message was dropped")));
                    }
                    () = working.notified() => {
                        is_taken = true;
                        time.set(sleep(limit));
                    }
                    () = closing.cancelled(), if !is_closing => {
                        is_closing = true;
                        if untaken.lock().take().is_some() {
                            return Err(HandlerError::release());
                        }
                    }
                    () = &mut time => {
                        let mut untaken = untaken.lock();
                        if untaken.is_none() && !is_taken {
                            // It was taken at this moment: its notification is on the way.
                            is_taken = true;
                            time.set(sleep(limit));
                            continue;
                        }
                        if untaken.is_none() {
                            return Err(HandlerError::retry_after(Duration::ZERO, "the pulled message was not settled in its time"));
                        }
                        // Nothing waits for messages. What does so later finds this one gone, and resumes then.
                        paused.send_replace(true);
                        *untaken = None;
                        return Err(HandlerError::release());
                    }
                }
            }
        }
    });
    (handler, offers)
}

#[cfg(test)]
mod tests {
    use futures_util::poll;
    use tokio::time::advance;

    use super::*;
    use crate::{MessageId, NewMessage};

    /// The stream has emptied the slot, and its notification comes after the end of the offer, or never.
    #[tokio::test(start_paused = true)]
    async fn regression_a_message_that_is_taken_as_its_offer_ends_has_its_whole_time() {
        for is_notified in [true, false] {
            let options = SubscribeOptions::default();
            let limit = options.visibility_timeout;
            let (handler, mut offers) = offering(&options, watch::Sender::new(false));
            let (id, stream) = (MessageId::from_u64(1), "app.default.s".parse().unwrap());
            let created_at = jiff::Timestamp::UNIX_EPOCH;
            let message = Message::new(id, stream, NewMessage::new(""), created_at, 1);
            let mut handling = pin!(handler.handle(message, Context::new(Arc::default())));
            assert!(poll!(&mut handling).is_pending());
            let offer = offers.recv().await.unwrap();
            assert!(offer.message.lock().take().is_some());
            advance(limit / 4).await;
            assert!(poll!(&mut handling).is_pending());
            if is_notified {
                offer.working.notify_one();
            }
            advance(limit / 4 * 3).await;
            assert!(poll!(&mut handling).is_pending());
            if is_notified {
                offer.settled.send(Ok(())).unwrap();
                handling.await.unwrap();
            } else {
                advance(limit / 4).await;
                handling.await.unwrap_err();
            }
        }
    }
}
