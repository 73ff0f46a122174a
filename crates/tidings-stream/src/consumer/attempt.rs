//! One attempt: running a handler within its time, and deciding what its end means.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::handler::Verdict;
use super::in_hand::InHand;
use super::settler::{Kind, Settling};
use super::time_limit::{Over, margin, watch};
use super::{Origin, Subscription};
use crate::dead_letter::{self, Reason};
use crate::engine::{ClaimedMessage, Outcome, Receipt, Settlement};
use crate::telemetry::process_span;
use crate::{BatchError, BatchHandler, Context, HandlerError, Message};

/// How an attempt ended.
enum End {
    /// The handler returned.
    Returned(Result<(), BatchError>),
    /// The handler panicked, with this message.
    Panicked(String),
    /// The handler ran out of time.
    TimedOut,
    /// Closing waited no longer.
    Abandoned,
    /// The store did not extend the claims.
    ClaimsExpired,
}

impl End {
    /// What metrics say of the end; `None` if the handler succeeded.
    fn error_type(&self) -> Option<&'static str> {
        match self {
            Self::Returned(Ok(())) => None,
            Self::Returned(Err(_)) => Some("handler"),
            Self::Panicked(_) => Some("panic"),
            Self::TimedOut => Some("timeout"),
            Self::Abandoned => Some("closed"),
            Self::ClaimsExpired => Some("claim_expired"),
        }
    }
}

/// How claims are to be settled.
pub(super) struct Ended {
    pub(super) ends: Vec<Settling>,
    /// Whether they may have expired before.
    pub(super) is_late: bool,
}

/// Runs the handler on claimed messages and returns how each claim is to be settled; nothing if other
/// claims have taken all of them.
pub(super) async fn run(
    subscription: &Subscription,
    handler: &impl BatchHandler,
    messages: Vec<ClaimedMessage>,
    lease_end: Instant,
    abort: &CancellationToken,
) -> Ended {
    let receipts: Arc<[Receipt]> = messages.iter().map(|it| it.receipt).collect();
    let overdue = &subscription.overdue;
    let running = overdue.register(Arc::clone(&receipts), lease_end).await;
    // The task may have waited for its turn while closing began, or until its claims expired.
    let begun = Instant::now();
    let margin = margin(subscription.options.visibility_timeout);
    let is_late = begun + margin >= lease_end;
    if subscription.closing.is_cancelled() || is_late {
        let ends = receipts.iter().copied().map(released).collect();
        let ends = running.end(is_late, ends);
        return Ended { ends, is_late };
    }
    let span = process_span(subscription, &messages);
    let context = Context::new(Arc::clone(&subscription.closing));
    let in_hand = if subscription.engine.settles_in_transactions() {
        InHand::new(subscription.group(), Arc::clone(&receipts))
    } else {
        InHand::default()
    };
    let (origins, messages): (Vec<_>, Vec<_>) = messages
        .into_iter()
        .map(|ClaimedMessage { mut message, .. }| {
            message.in_hand = in_hand.clone();
            (Origin::of(&message), message)
        })
        .unzip();
    let end = tokio::select! {
        biased;
        end = call(handler, messages, context, span) => end,
        () = abort.cancelled() => End::Abandoned,
        over = watch(subscription, &running, &in_hand, lease_end) => match over {
            Over::TimedOut => End::TimedOut,
            Over::ClaimsExpire => End::ClaimsExpired,
            Over::Overtaken => {
                subscription.stats.lock().stale += origins.len() as u64;
                return Ended { ends: Vec::new(), is_late: true };
            }
        },
    };
    let now = Instant::now();
    if !matches!(&end, End::Returned(Err(failed)) if failed.is_release()) {
        let telemetry = &subscription.telemetry;
        telemetry.processed(now - begun, end.error_type());
    }
    let is_late = now + margin >= lease_end;
    let messages = receipts.iter().zip(&origins);
    // Most handlers settle in no transaction, and one look is enough for all of their messages.
    let any_by_transaction = in_hand.any_may_be_settled();
    let ends = messages.map(|(receipt, origin)| {
        let by_transaction = any_by_transaction && in_hand.may_be_settled(origin.id);
        decide(subscription, *receipt, origin, &end, by_transaction)
    });
    // Its own consumer may have claimed its messages again meanwhile.
    let ends = running.end(is_late, ends.collect());
    Ended { ends, is_late }
}

/// Hands back a message that no handler has begun.
pub(super) fn released(receipt: Receipt) -> Settling {
    Settling {
        settlement: Settlement {
            receipt,
            outcome: Outcome::Released,
        },
        kind: Kind::Released,
        by_transaction: false,
    }
}

/// Dead-letters a message whose attempts were all counted before this claim: its handler hung, or
/// ended the process, each time.
pub(super) fn poisoned(subscription: &Subscription, claimed: &ClaimedMessage) -> Settling {
    let counted = Origin::of(&claimed.message);
    let origin = Origin {
        // This claim has counted an attempt that is not made, and so have earlier ones if they ended before
        // the dead letter was recorded.
        attempt: counted
            .attempt
            .saturating_sub(1)
            .min(subscription.options.max_attempts().unwrap_or(u32::MAX)),
        ..counted
    };
    Settling {
        settlement: Settlement {
            receipt: claimed.receipt,
            outcome: dead(
                subscription,
                &origin,
                Reason::Poison,
                claimed.last_error.clone(),
            ),
        },
        kind: Kind::Finished,
        by_transaction: false,
    }
}

/// Polls the handler within a span, and catches its panic, or that of a tracing layer.
async fn call(
    handler: &impl BatchHandler,
    messages: Vec<Message>,
    context: Context,
    span: Span,
) -> End {
    // The call is inside the future, for handlers that panic before they return theirs.
    let mut working = pin!(async move { handler.handle(messages, context).await }.instrument(span));
    std::future::poll_fn(|context| {
        // After a panic the future is dropped and never polled again.
        match catch_unwind(AssertUnwindSafe(|| working.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(result)) => Poll::Ready(End::Returned(result)),
            Err(panic) => Poll::Ready(End::Panicked(message_of(panic.as_ref()))),
        }
    })
    .await
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    if let Some(words) = panic.downcast_ref::<&str>() {
        (*words).to_owned()
    } else if let Some(words) = panic.downcast_ref::<String>() {
        words.clone()
    } else {
        "no message".to_owned()
    }
}

/// Decides what becomes of a message. One that a transaction has settled is gone once that is committed;
/// if it is still there, its handler has not done its work.
fn decide(
    subscription: &Subscription,
    receipt: Receipt,
    origin: &Origin,
    end: &End,
    by_transaction: bool,
) -> Settling {
    let options = &subscription.options;
    let is_last = options
        .max_attempts()
        .is_some_and(|max| origin.attempt >= max);
    let retry_or_dead_letter = |delay: Duration, reason: Reason, error: String| {
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
        End::Returned(result) => {
            match result
                .as_ref()
                .err()
                .and_then(|failed| failed.of(origin.id))
            {
                None if by_transaction => {
                    let error = "the transaction of the handler was not committed".to_owned();
                    retry_or_dead_letter(usual_delay(), Reason::Exhausted, error)
                }
                None => Outcome::Acknowledged,
                Some(HandlerError { source, verdict }) => {
                    let error = dead_letter::describe(source.as_ref());
                    match *verdict {
                        Verdict::Release => Outcome::Released,
                        Verdict::SkipRetry => dead(subscription, origin, Reason::Skip, Some(error)),
                        Verdict::Retry => {
                            retry_or_dead_letter(usual_delay(), Reason::Exhausted, error)
                        }
                        Verdict::RetryAfter(delay) => {
                            retry_or_dead_letter(delay, Reason::Exhausted, error)
                        }
                    }
                }
            }
        }
        End::Panicked(message) => {
            let error = dead_letter::truncated(format!("the handler panicked: {message}"));
            retry_or_dead_letter(usual_delay(), Reason::Exhausted, error)
        }
        End::TimedOut => {
            // It has waited long enough already.
            let error = "the handler did not finish in its time".to_owned();
            retry_or_dead_letter(Duration::ZERO, Reason::Poison, error)
        }
        // The message has not failed: were its last attempt counted, the next claim would take it for poison.
        End::Abandoned | End::ClaimsExpired if is_last => Outcome::Released,
        End::Abandoned => Outcome::Retry {
            delay: Duration::ZERO,
            error: Some("the handler was dropped when its consumer closed".to_owned()),
        },
        End::ClaimsExpired => Outcome::Retry {
            delay: Duration::ZERO,
            error: Some(
                "the handler was dropped because its claim could not be extended".to_owned(),
            ),
        },
    };
    let kind = match (end, &outcome) {
        (End::Abandoned, _) => Kind::Abandoned,
        (End::Returned(_), Outcome::Released) => Kind::Released,
        _ => Kind::Finished,
    };
    Settling {
        settlement: Settlement { receipt, outcome },
        kind,
        by_transaction,
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
        "dead-lettering a message"
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
