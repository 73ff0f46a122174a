//! One attempt: running a handler within its time, and judging how it ended.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::settler::{Kind, Settling};
use super::{Origin, Subscription};
use crate::dead_letter::{self, Reason};
use crate::engine::{Delivery, Engine, Outcome, Receipt, Settlement};
use crate::handler::Verdict;
use crate::{Handler, HandlerError, Message};

/// How an attempt ended.
enum End {
    /// The handler answered.
    Answered(Result<(), HandlerError>),
    /// The handler panicked, with these words.
    Panicked(String),
    /// The handler ran out of time.
    TimedOut,
    /// Closing waited no longer.
    Abandoned,
    /// Somebody else has claimed the message.
    Overtaken,
}

/// Runs the handler on a claimed message and says how the claim is to be settled; `None` when it
/// is no longer ours to settle.
pub(super) async fn run(
    subscription: &Subscription,
    handler: &impl Handler,
    delivery: Delivery,
    lease_end: Instant,
    abort: &CancellationToken,
) -> Option<Settling> {
    let Delivery {
        message, receipt, ..
    } = delivery;
    // The task may have waited for its turn while closing began, or past its lease.
    if subscription.closing.is_cancelled() || Instant::now() >= lease_end {
        return Some(released(receipt));
    }
    let origin = Origin {
        id: message.id,
        created_at: message.created_at,
        attempt: message.attempt,
    };
    let end = tokio::select! {
        biased;
        end = answer(handler, message) => end,
        () = abort.cancelled() => End::Abandoned,
        end = watch(subscription, receipt, lease_end) => end,
    };
    judge(subscription, receipt, &origin, end)
}

/// Hands a message back that no handler has begun.
pub(super) fn released(receipt: Receipt) -> Settling {
    Settling {
        settlement: Settlement {
            receipt,
            outcome: Outcome::Released,
        },
        kind: Kind::Released,
    }
}

/// Buries a message whose attempts were all counted before this claim: its handler hung, or took
/// the process with it, each time.
pub(super) fn poisoned(subscription: &Subscription, delivery: &Delivery) -> Settling {
    let origin = Origin {
        id: delivery.message.id,
        created_at: delivery.message.created_at,
        // This claim counted one that is not going to be made.
        attempt: delivery.message.attempt.saturating_sub(1),
    };
    Settling {
        settlement: Settlement {
            receipt: delivery.receipt,
            outcome: dead(
                subscription,
                &origin,
                Reason::Poison,
                delivery.last_error.clone(),
            ),
        },
        kind: Kind::Finished,
    }
}

/// Polls the handler, and catches its panic.
async fn answer(handler: &impl Handler, message: Message) -> End {
    let mut work = pin!(async move { handler.handle(message).await });
    std::future::poll_fn(|context| {
        // After a panic the future is dropped and never polled again.
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(answer)) => Poll::Ready(End::Answered(answer)),
            Err(panic) => Poll::Ready(End::Panicked(words_of(panic.as_ref()))),
        }
    })
    .await
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    if let Some(words) = panic.downcast_ref::<&str>() {
        (*words).to_owned()
    } else if let Some(words) = panic.downcast_ref::<String>() {
        words.clone()
    } else {
        "no message".to_owned()
    }
}

/// Ends when the handler's time is up, extending its claim until then where that is asked for.
async fn watch(subscription: &Subscription, receipt: Receipt, lease_end: Instant) -> End {
    let visibility = subscription.options.visibility_timeout;
    let margin = (visibility / 10).min(Duration::from_secs(1));
    let limit = subscription.options.handler_timeout;
    let Some(limit) = limit.filter(|limit| *limit > visibility.saturating_sub(margin)) else {
        let within_lease = tokio::time::sleep_until(lease_end - margin);
        match limit {
            None => within_lease.await,
            Some(limit) => tokio::select! {
                () = within_lease => {}
                () = tokio::time::sleep(limit) => {}
            },
        }
        return End::TimedOut;
    };
    let mut time_is_up = pin!(tokio::time::sleep(limit));
    let mut lease_end = lease_end;
    // A third of the way through, so that two extensions may fail before the claim does.
    let mut next = lease_end - visibility * 2 / 3;
    loop {
        tokio::select! {
            () = &mut time_is_up => return End::TimedOut,
            () = tokio::time::sleep_until(next) => {}
        }
        let asked_at = Instant::now();
        match subscription
            .engine
            .extend(subscription.group(), Arc::from([receipt]), visibility)
            .await
        {
            Ok(obeyed) if obeyed == [true] => {
                lease_end = asked_at + visibility;
                next = asked_at + visibility / 3;
            }
            Ok(_) => return End::Overtaken,
            Err(error) => {
                tracing::warn!(
                    stream = %subscription.group().stream, group = %subscription.group().group,
                    id = %receipt.id, error = &error as &dyn std::error::Error,
                    "a claim was not extended"
                );
                next = asked_at + visibility / 6;
                if next >= lease_end - margin {
                    return End::TimedOut;
                }
            }
        }
    }
}

/// Decides what becomes of the message.
fn judge(
    subscription: &Subscription,
    receipt: Receipt,
    origin: &Origin,
    end: End,
) -> Option<Settling> {
    let options = &subscription.options;
    let is_last = options
        .max_attempts()
        .is_some_and(|max| origin.attempt >= max);
    let retry_or_bury = |delay: Duration, reason: Reason, error: String| {
        if is_last {
            dead(subscription, origin, reason, Some(error))
        } else {
            Outcome::Retry {
                delay,
                error: Some(error),
            }
        }
    };
    let usual_delay = || options.delay_after(origin.attempt);
    let (outcome, kind) = match end {
        End::Answered(Ok(())) => (Outcome::Acknowledged, Kind::Finished),
        End::Answered(Err(HandlerError { source, verdict })) => {
            let error = dead_letter::describe(source.as_ref());
            let outcome = match verdict {
                Verdict::SkipRetry => dead(subscription, origin, Reason::Skip, Some(error)),
                Verdict::Retry => retry_or_bury(usual_delay(), Reason::Exhausted, error),
                Verdict::RetryAfter(delay) => retry_or_bury(delay, Reason::Exhausted, error),
            };
            (outcome, Kind::Finished)
        }
        End::Panicked(words) => {
            let error = dead_letter::truncated(format!("the handler panicked: {words}"));
            let outcome = retry_or_bury(usual_delay(), Reason::Exhausted, error);
            (outcome, Kind::Finished)
        }
        End::TimedOut => {
            // It has waited long enough already.
            let error = "the handler did not finish in its time".to_owned();
            let outcome = retry_or_bury(Duration::ZERO, Reason::Poison, error);
            (outcome, Kind::Finished)
        }
        End::Abandoned => {
            // Even the last attempt is not the message's fault; the next claim counts it anyway.
            let outcome = Outcome::Retry {
                delay: Duration::ZERO,
                error: Some("the handler was dropped when its consumer closed".to_owned()),
            };
            (outcome, Kind::Abandoned)
        }
        End::Overtaken => {
            subscription.counters.stale.fetch_add(1, Ordering::Relaxed);
            return None;
        }
    };
    Some(Settling {
        settlement: Settlement { receipt, outcome },
        kind,
    })
}

fn dead(
    subscription: &Subscription,
    origin: &Origin,
    reason: Reason,
    error: Option<String>,
) -> Outcome {
    tracing::warn!(
        stream = %subscription.group().stream, group = %subscription.group().group, id = %origin.id,
        attempts = origin.attempt, reason = reason.as_str(), error = error.as_deref(),
        "a message becomes a dead letter"
    );
    Outcome::Dead {
        to: subscription.dead_letters.clone(),
        provenance: dead_letter::provenance(
            subscription.group(),
            &subscription.consumer.consumer,
            origin,
            reason,
            error,
        ),
    }
}
