//! The timer for the head of a request.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Sleep, Timer};
use tokio::time::Instant;

/// A timer that is this late says nothing about the client: the process did not run.
const LATE: Duration = Duration::from_secs(1);

/// Time to read what arrived while the process did not run.
const EXTRA: Duration = Duration::from_secs(1);

/// Ends late waits late. After a process was stopped for a while, its timers expire before it has
/// read anything; without the extra time, requests that arrived in time would be cut off.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeadTimer;

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(HeadSleep::until(Instant::now() + duration))
    }

    #[allow(
        clippy::disallowed_types,
        reason = "the trait's own type; it is converted at once"
    )]
    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(HeadSleep::until(deadline.into()))
    }

    #[allow(
        clippy::disallowed_types,
        clippy::disallowed_methods,
        reason = "the trait's own type; the clock is that of tokio"
    )]
    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

struct HeadSleep(Pin<Box<tokio::time::Sleep>>);

impl HeadSleep {
    fn until(deadline: Instant) -> Self {
        Self(Box::pin(tokio::time::sleep_until(deadline)))
    }
}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.0.as_mut().poll(context));
            let now = Instant::now();
            if now.saturating_duration_since(self.0.deadline()) < LATE {
                return Poll::Ready(());
            }
            self.0.as_mut().reset(now + EXTRA);
        }
    }
}

impl Sleep for HeadSleep {}

#[cfg(test)]
mod tests {
    use super::*;

    async fn is_over(sleep: &mut Pin<Box<dyn Sleep>>) -> bool {
        tokio::time::timeout(Duration::ZERO, sleep).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_ends_late_is_extended_once() {
        let mut sleep = HeadTimer.sleep(Duration::from_secs(10));
        // The process does not run for 40 seconds.
        tokio::time::advance(Duration::from_secs(40)).await;
        assert!(!is_over(&mut sleep).await);
        tokio::time::advance(Duration::from_millis(1001)).await;
        assert!(is_over(&mut sleep).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_ends_in_time_is_not_extended() {
        let mut sleep = HeadTimer.sleep(Duration::from_secs(10));
        tokio::time::advance(Duration::from_millis(10_100)).await;
        assert!(is_over(&mut sleep).await);
    }
}
