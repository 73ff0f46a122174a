//! What the tests have in common: receivers, policies, and a look at futures.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tidings::retry::{Exponential, RetryPolicy, Schedule};
use tidings_test_support::{Behaviour, Receiver, Script};

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) async fn receiver(script: impl Into<Script>) -> Receiver {
    Receiver::start(script).await.unwrap()
}

/// Takes requests and never replies.
pub(crate) async fn silent() -> Receiver {
    receiver(Behaviour::NeverReply).await
}

/// So many attempts, one right after the other.
pub(crate) fn at_once(attempts: u32) -> RetryPolicy {
    let nanosecond = Duration::from_nanos(1);
    RetryPolicy::new(Exponential::new(nanosecond, nanosecond).unwrap()).with_max_attempts(attempts)
}

/// A second attempt in an hour, which no test waits for.
pub(crate) fn in_an_hour() -> RetryPolicy {
    RetryPolicy::new(Schedule::new([HOUR]).unwrap())
}

/// Polls a future once.
pub(crate) async fn is_pending<F: Future + Send>(mut future: Pin<&mut F>) -> bool {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}
