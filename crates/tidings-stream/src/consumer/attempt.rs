//! One attempt: running a handler within its time, and judging how it ended.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::handler::Verdict;
use super::settler::{Kind, Settling};
use super::time_limit::{Over, watch};
use super::{Origin, Subscription};
use crate::dead_letter::{self, Reason};
use crate::engine::{Delivery, Outcome, Receipt, Settlement};
use crate::{BatchError, BatchHandler, HandlerError, Message};

/// How an attempt ended.
enum End {
    /// The handler answered.
    Answered(Result<(), BatchError>),
    /// The handler panicked, with these words.
    Panicked(String),
    /// The handler ran out of time.
    TimedOut,
    /// Closing waited no longer.
    Abandoned,
}

/// Runs the handler on claimed messages and says how each claim is to be settled; of none when they
/// are no longer ours to settle.
pub(super) async fn run(
    subscription: &Subscription,
    handler: &impl BatchHandler,
    deliveries: Vec<Delivery>,
    lease_end: Instant,
    abort: &CancellationToken,
) -> Vec<Settling> {
    let receipts: Vec<Receipt> = deliveries.iter().map(|delivery| delivery.receipt).collect();
    // The task may have waited for its turn while closing began, or past its lease.
    if subscription.closing.is_cancelled() || Instant::now() >= lease_end {
        return receipts.into_iter().map(released).collect();
    }
    let (origins, messages): (Vec<_>, Vec<_>) = deliveries
        .into_iter()
        .map(|Delivery { message, .. }| (Origin::of(&message), message))
        .unzip();
    let end = tokio::select! {
        biased;
        end = answer(handler, messages) => end,
        () = abort.cancelled() => End::Abandoned,
        over = watch(subscription, &receipts, lease_end) => match over {
            Over::TimedOut => End::TimedOut,
            Over::Overtaken => {
                let stale = &subscription.counters.stale;
                stale.fetch_add(receipts.len() as u64, Ordering::Relaxed);
                return Vec::new();
            }
        },
    };
    receipts
        .into_iter()
        .zip(&origins)
        .map(|(receipt, origin)| judge(subscription, receipt, origin, &end))
        .collect()
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
    let claimed = Origin::of(&delivery.message);
    let origin = Origin {
        // This claim counted one that is not going to be made.
        attempt: claimed.attempt.saturating_sub(1),
        ..claimed
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
async fn answer(handler: &impl BatchHandler, messages: Vec<Message>) -> End {
    // The call is inside of the future, for handlers that panic before they make theirs.
    let mut working = pin!(async move { handler.handle(messages).await });
    std::future::poll_fn(|context| {
        // After a panic the future is dropped and never polled again.
        match catch_unwind(AssertUnwindSafe(|| working.as_mut().poll(context))) {
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

/// Decides what becomes of a message.
fn judge(subscription: &Subscription, receipt: Receipt, origin: &Origin, end: &End) -> Settling {
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
    let outcome = match end {
        End::Answered(answer) => {
            match answer
                .as_ref()
                .err()
                .and_then(|failed| failed.of(origin.id))
            {
                None => Outcome::Acknowledged,
                Some(HandlerError { source, verdict }) => {
                    let error = dead_letter::describe(source.as_ref());
                    match *verdict {
                        Verdict::SkipRetry => dead(subscription, origin, Reason::Skip, Some(error)),
                        Verdict::Retry => retry_or_bury(usual_delay(), Reason::Exhausted, error),
                        Verdict::RetryAfter(delay) => {
                            retry_or_bury(delay, Reason::Exhausted, error)
                        }
                    }
                }
            }
        }
        End::Panicked(words) => {
            let error = dead_letter::truncated(format!("the handler panicked: {words}"));
            retry_or_bury(usual_delay(), Reason::Exhausted, error)
        }
        End::TimedOut => {
            // It has waited long enough already.
            let error = "the handler did not finish in its time".to_owned();
            retry_or_bury(Duration::ZERO, Reason::Poison, error)
        }
        // Even the last attempt is not the message's fault; the next claim counts it anyway.
        End::Abandoned => Outcome::Retry {
            delay: Duration::ZERO,
            error: Some("the handler was dropped when its consumer closed".to_owned()),
        },
    };
    Settling {
        settlement: Settlement { receipt, outcome },
        kind: match end {
            End::Abandoned => Kind::Abandoned,
            _ => Kind::Finished,
        },
    }
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
