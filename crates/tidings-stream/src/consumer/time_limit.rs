//! The time that a handler has, and keeping its claims for that long.

use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::Subscription;
use super::in_hand::InHand;
use super::overdue::Registered;

/// Why a handler has to stop.
pub(super) enum Over {
    /// Its time is up.
    TimedOut,
    /// Other claims have taken all of its messages.
    Overtaken,
    /// The store did not extend its claims, which are about to expire.
    ClaimsExpire,
}

/// Ends when the handler's time is up, and extends its claims until then if the time is longer than
/// they still last. It ends before the claims do, also if the store does not reply.
pub(super) async fn watch(
    subscription: &Subscription,
    running: &Registered<'_>,
    in_hand: &InHand,
    lease_end: Instant,
) -> Over {
    let visibility = subscription.options.visibility_timeout;
    let margin = margin(visibility);
    let left = (lease_end - margin).saturating_duration_since(Instant::now());
    let usual = visibility.saturating_sub(margin);
    // What a claim has taken of its time is not missed if it is little.
    let by_default = if left + margin < usual { usual } else { left };
    let limit = subscription.options.handler_timeout.unwrap_or(by_default);
    if limit <= left {
        sleep(limit).await;
        return Over::TimedOut;
    }
    let mut time_is_up = pin!(sleep(limit));
    let mut lease_end = lease_end;
    // A third of the way through, so that two extensions may fail before the claim expires.
    let mut next = lease_end - visibility * 2 / 3;
    loop {
        let extension = async {
            sleep_until(next).await;
            let asked_at = Instant::now();
            let group = subscription.group();
            let extending = subscription
                .engine
                .extend(group, running.receipts(), visibility);
            (asked_at, extending.await)
        };
        let (asked_at, extended) = tokio::select! {
            extension = extension => extension,
            () = &mut time_is_up => return Over::TimedOut,
            () = sleep_until(lease_end - margin) => return Over::ClaimsExpire,
        };
        match extended {
            // The settlement of those that other claims have taken will be refused.
            Ok(obeyed) if obeyed.contains(&true) => {
                subscription.extending.lock().worked();
                lease_end = asked_at + visibility;
                next = asked_at + visibility / 3;
                running.extended(lease_end);
            }
            // What a transaction has settled has no claim that could expire, and its handler may have more to do.
            Ok(_) if in_hand.any_may_be_settled() => {
                running.extended(time_is_up.deadline());
                time_is_up.await;
                return Over::TimedOut;
            }
            Ok(_) => return Over::Overtaken,
            Err(error) => {
                subscription.extending.lock().failed(&error);
                next = asked_at + visibility / 6;
            }
        }
    }
}

/// How long before its claims expire a handler is dropped.
pub(super) fn margin(visibility: Duration) -> Duration {
    (visibility / 10).min(Duration::from_secs(1))
}
