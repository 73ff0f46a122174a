//! The time that a handler has, and keeping its claims for that long.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Subscription;
use crate::engine::Receipt;

/// Why a handler has to stop.
pub(super) enum Over {
    /// Its time is up.
    TimedOut,
    /// Somebody else has claimed all of its messages.
    Overtaken,
}

/// Ends when the handler's time is up, extending its claims until then where that is asked for.
pub(super) async fn watch(
    subscription: &Subscription,
    receipts: &[Receipt],
    lease_end: Instant,
) -> Over {
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
        return Over::TimedOut;
    };
    let receipts: Arc<[Receipt]> = receipts.into();
    let mut time_is_up = pin!(tokio::time::sleep(limit));
    let mut lease_end = lease_end;
    // A third of the way through, so that two extensions may fail before the claim does.
    let mut next = lease_end - visibility * 2 / 3;
    loop {
        tokio::select! {
            () = &mut time_is_up => return Over::TimedOut,
            () = tokio::time::sleep_until(next) => {}
        }
        let asked_at = Instant::now();
        match subscription
            .engine
            .extend(subscription.group(), Arc::clone(&receipts), visibility)
            .await
        {
            // Of those that others have, the settlement will be refused.
            Ok(obeyed) if obeyed.contains(&true) => {
                lease_end = asked_at + visibility;
                next = asked_at + visibility / 3;
            }
            Ok(_) => return Over::Overtaken,
            Err(error) => {
                tracing::warn!(
                    stream = %subscription.group().stream, group = %subscription.group().group,
                    messages = receipts.len(), error = &error as &dyn std::error::Error,
                    "claims were not extended"
                );
                next = asked_at + visibility / 6;
                if next >= lease_end - margin {
                    return Over::TimedOut;
                }
            }
        }
    }
}
