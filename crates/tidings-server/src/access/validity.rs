//! How long a caller's permission lasts, on a stream that may be open longer.

use std::future::pending;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::future::OptionFuture;
use jiff::Timestamp;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// How long before the end a stream is warned; half of what is left if that is less.
const NOTICE: Duration = Duration::from_secs(60);

/// Longer than any stream, and short enough for every clock.
const MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// How often one that waits for the end looks at the wall clock.
const LOOK_EVERY: Duration = Duration::from_secs(20);

/// When a stream must be warned, and when it must end. Most streams have neither, so both are kept apart.
#[derive(Debug)]
pub(crate) struct Validity {
    expiry: Option<Box<Expiry>>,
    revoked: Option<Box<Revocation>>,
}

/// What is due on a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// The warning that the stream ends at this time.
    Warning(Timestamp),
    /// The end, because the time is over.
    Expired,
    /// The end, because the key was revoked.
    Revoked,
}

impl Validity {
    /// Ends at a time, or when a key is revoked, if there is one.
    pub(crate) fn new(end: Option<Timestamp>, revoked: Option<CancellationToken>) -> Self {
        Self {
            expiry: end.map(|end| Box::new(Expiry::new(end))),
            revoked: revoked.map(|revoked| Box::new(Revocation::new(revoked))),
        }
    }

    /// Whether the end has come.
    pub(crate) fn is_over(&self) -> bool {
        let is_revoked = |revoked: &Revocation| revoked.token.is_cancelled();
        self.revoked.as_deref().is_some_and(is_revoked)
            || self.expiry.as_deref().is_some_and(|it| it.end.has_come())
    }

    /// Waits until the end has come.
    pub(crate) fn over(&self) -> impl Future<Output = ()> + Send + use<> {
        let revoked = self.revoked.as_deref().map(|revoked| revoked.token.clone());
        let end = self.expiry.as_deref().map(|expiry| expiry.end.clone());
        async move {
            let revoked = OptionFuture::from(revoked.map(CancellationToken::cancelled_owned));
            let expired = OptionFuture::from(end.map(End::come));
            tokio::select! {
                Some(()) = revoked => {}
                Some(()) = expired => {}
                else => pending().await,
            }
        }
    }

    /// Ready with what is due next; never if nothing is. To be polled now and then, as for the pings of a stream: nothing
    /// wakes it when the wall clock is set forward.
    pub(crate) fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<Due> {
        if let Some(revoked) = &mut self.revoked
            && revoked.waiting.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Due::Revoked);
        }
        match &mut self.expiry {
            Some(expiry) => expiry.poll_due(context),
            None => Poll::Pending,
        }
    }
}

/// An end that comes with the cancellation of a token.
#[derive(Debug)]
struct Revocation {
    token: CancellationToken,
    waiting: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Revocation {
    fn new(token: CancellationToken) -> Self {
        let waiting = Box::pin(token.clone().cancelled_owned());
        Self { token, waiting }
    }
}

/// A time that comes by the monotonic clock, or by the wall clock if that is earlier: the monotonic one stands still
/// while the machine is suspended.
#[derive(Debug, Clone)]
struct End {
    at: Timestamp,
    by: Instant,
}

impl End {
    fn has_come(&self) -> bool {
        self.by <= Instant::now() || self.at <= Timestamp::now()
    }

    /// Waits until it has come.
    async fn come(self) {
        while !self.has_come() {
            sleep_until(self.by.min(Instant::now() + LOOK_EVERY)).await;
        }
    }
}

/// An end that is known in advance.
#[derive(Debug)]
struct Expiry {
    end: End,
    timer: Pin<Box<Sleep>>,
    has_warned: bool,
}

impl Expiry {
    fn new(at: Timestamp) -> Self {
        let left = Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default();
        let left = left.min(MAX);
        let now = Instant::now();
        Self {
            end: End { at, by: now + left },
            timer: Box::pin(sleep_until(now + left - NOTICE.min(left / 2))),
            has_warned: false,
        }
    }

    fn poll_due(&mut self, context: &mut Context<'_>) -> Poll<Due> {
        if !self.end.has_come() {
            ready!(self.timer.as_mut().poll(context));
        }
        if self.has_warned {
            return Poll::Ready(Due::Expired);
        }
        self.has_warned = true;
        self.timer.as_mut().reset(self.end.by);
        Poll::Ready(Due::Warning(self.end.at))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    async fn due(validity: &mut Validity) -> Due {
        poll_fn(|context| validity.poll_due(context)).await
    }

    fn until(at: Timestamp) -> Validity {
        Validity::new(Some(at), None)
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_warned_a_minute_before_the_end_or_at_half_of_a_short_time() {
        for (left, warned) in [(600, 540), (90, 45), (10, 5)] {
            let at = Timestamp::now() + Duration::from_secs(left);
            let mut validity = until(at);
            let started = Instant::now();
            // The wall clock does not stand still between two lines of a test.
            let elapsed = || (started.elapsed() + Duration::from_millis(500)).as_secs();
            assert_eq!(due(&mut validity).await, Due::Warning(at));
            assert_eq!(elapsed(), warned);
            assert!(!validity.is_over());
            validity.over().await;
            assert!(validity.is_over());
            assert_eq!(due(&mut validity).await, Due::Expired);
            assert_eq!(elapsed(), left);
            assert_eq!(due(&mut validity).await, Due::Expired);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_past_is_over_at_once_and_the_last_time_never() {
        let mut validity = until(Timestamp::UNIX_EPOCH);
        let started = Instant::now();
        let warning = Due::Warning(Timestamp::UNIX_EPOCH);
        assert_eq!(due(&mut validity).await, warning);
        assert_eq!(due(&mut validity).await, Due::Expired);
        assert!(started.elapsed() < Duration::from_secs(1));
        let year = Duration::from_secs(365 * 24 * 60 * 60);
        for end in [Some(Timestamp::MAX), None] {
            let mut validity = Validity::new(end, Some(CancellationToken::new()));
            let over = tokio::time::timeout(year, validity.over());
            assert!(over.await.is_err());
            let due = tokio::time::timeout(year, due(&mut validity));
            assert!(due.await.is_err());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn regression_the_wall_clock_ends_a_stream_after_the_machine_was_suspended() {
        let at = Timestamp::now() + Duration::from_secs(600);
        let mut validity = until(at);
        let started = Instant::now();
        assert!(!validity.is_over());
        let over = validity.over();
        // The wall clock has gone on, and the monotonic one has not.
        let past = Timestamp::now();
        validity.expiry.as_mut().unwrap().end.at = past;
        assert!(validity.is_over());
        assert_eq!(due(&mut validity).await, Due::Warning(past));
        assert_eq!(due(&mut validity).await, Due::Expired);
        validity.over().await;
        assert_eq!(started.elapsed(), Duration::ZERO);
        // It waits for the time of before, which the wall clock has not reached.
        over.await;
        assert!(started.elapsed() >= Duration::from_secs(599));
    }

    #[tokio::test(start_paused = true)]
    async fn a_revoked_key_ends_a_stream_at_once() {
        let revoked = CancellationToken::new();
        let mut validity = Validity::new(Some(Timestamp::MAX), Some(revoked.clone()));
        assert!(!validity.is_over());
        let over = validity.over();
        revoked.cancel();
        over.await;
        assert!(validity.is_over());
        assert_eq!(due(&mut validity).await, Due::Revoked);
    }
}
