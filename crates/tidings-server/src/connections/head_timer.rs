//! The timer for the head of a request.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use hyper::rt::{Sleep, Timer};
use tokio::time::Instant;

use super::Progress;

/// A timer that is this late says nothing about the client: the process did not run.
const LATE: Duration = Duration::from_secs(1);

/// Time to read what arrived while the process did not run.
const EXTRA: Duration = Duration::from_secs(1);

/// Limits the wait for the head of a request: the first from the opening of the connection, later ones
/// from their first byte. Until that byte a connection is idle, and may be for longer.
///
/// A wait that ends late is extended. After a process was stopped for a while, its timers expire before
/// it has read anything; without the extra time, requests that arrived in time would be cut off.
#[derive(Debug)]
pub(super) struct HeadTimer {
    progress: Arc<Progress>,
    keep_alive: Duration,
    had_first: AtomicBool,
}

impl HeadTimer {
    pub(super) fn new(progress: Arc<Progress>, keep_alive: Duration) -> Self {
        Self {
            progress,
            keep_alive,
            had_first: AtomicBool::new(false),
        }
    }

    fn wait(&self, head_timeout: Duration) -> Pin<Box<dyn Sleep>> {
        let is_first = !self.had_first.swap(true, Ordering::Relaxed);
        let timeout = if is_first {
            head_timeout
        } else {
            self.keep_alive
        };
        Box::pin(HeadSleep {
            sleep: Box::pin(tokio::time::sleep(timeout)),
            idle: (!is_first).then(|| Idle {
                received: self.progress.received(),
                progress: Arc::clone(&self.progress),
                head_timeout,
            }),
        })
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.wait(duration)
    }

    #[allow(
        clippy::disallowed_types,
        reason = "the trait's own type; it is converted at once"
    )]
    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        self.wait(Instant::from(deadline).saturating_duration_since(Instant::now()))
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

struct HeadSleep {
    sleep: Pin<Box<tokio::time::Sleep>>,
    /// Set until the first byte of the head.
    idle: Option<Idle>,
}

struct Idle {
    progress: Arc<Progress>,
    received: u64,
    head_timeout: Duration,
}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if let Some(idle) = self
            .idle
            .take_if(|idle| idle.progress.received() != idle.received)
        {
            self.sleep
                .as_mut()
                .reset(Instant::now() + idle.head_timeout);
        }
        loop {
            ready!(self.sleep.as_mut().poll(context));
            let now = Instant::now();
            if now.saturating_duration_since(self.sleep.deadline()) < LATE {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(now + EXTRA);
        }
    }
}

impl Sleep for HeadSleep {}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: Duration = Duration::from_secs(10);
    const KEEP_ALIVE: Duration = Duration::from_secs(75);

    fn timer() -> (HeadTimer, Arc<Progress>) {
        let progress = Arc::new(Progress::default());
        (HeadTimer::new(Arc::clone(&progress), KEEP_ALIVE), progress)
    }

    async fn is_over(sleep: &mut Pin<Box<dyn Sleep>>) -> bool {
        tokio::time::timeout(Duration::ZERO, sleep).await.is_ok()
    }

    async fn advance(seconds: u64) {
        tokio::time::advance(Duration::from_millis(seconds * 1000 + 1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_ends_late_is_extended_once() {
        let mut sleep = timer().0.sleep(HEAD);
        // The process does not run for 40 seconds.
        advance(40).await;
        assert!(!is_over(&mut sleep).await);
        advance(1).await;
        assert!(is_over(&mut sleep).await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_head_is_due_from_the_opening() {
        let (timer, progress) = timer();
        let mut sleep = timer.sleep(HEAD);
        advance(6).await;
        progress.receive();
        assert!(!is_over(&mut sleep).await);
        advance(4).await;
        assert!(is_over(&mut sleep).await);
    }

    #[tokio::test(start_paused = true)]
    async fn later_heads_are_due_from_their_first_byte_and_idle_connections_may_wait() {
        let (timer, progress) = timer();
        drop(timer.sleep(HEAD));
        let mut idle = timer.sleep(HEAD);
        advance(74).await;
        assert!(!is_over(&mut idle).await);
        advance(1).await;
        assert!(is_over(&mut idle).await);

        let mut begun = timer.sleep(HEAD);
        advance(60).await;
        progress.receive();
        assert!(!is_over(&mut begun).await);
        advance(9).await;
        assert!(!is_over(&mut begun).await);
        advance(1).await;
        assert!(is_over(&mut begun).await);
    }
}
