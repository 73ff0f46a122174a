//! The one task that finds what no wake-up told.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::notifier::Shared;
use crate::store::{ChangeMark, Changes, Store};
use crate::{StoreError, UserId};

/// Logs asked for at a time.
const CHANGES_PER_QUERY: usize = 512;

/// Asks the store at every interval which logs changed, until the store is closed.
///
/// One query serves all streams of the instance, and costs what has changed, not how many streams
/// or users there are.
pub(crate) async fn run(shared: &Shared, poll_interval: Duration) {
    let mut ticks = interval(poll_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut mark = None;
    loop {
        ticks.tick().await;
        match sweep(shared, mark).await {
            Ok(next) => mark = Some(next),
            Err(StoreError::Closed) => {
                shared.hub.close();
                return;
            }
            Err(error) => {
                shared.stats.sweep_failed();
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a sweep failed and is left to the next"
                );
            }
        }
    }
}

/// Wakes the streams of logs that changed after the mark. Without a mark, every log with streams is
/// looked at.
async fn sweep(shared: &Shared, mark: Option<ChangeMark>) -> Result<ChangeMark, StoreError> {
    let Some(mut mark) = mark else {
        let mark = shared.store.mark().await?;
        check_all(shared).await?;
        return Ok(mark);
    };
    loop {
        let Changes {
            mark: next,
            logs,
            more,
        } = shared.store.changes(mark, CHANGES_PER_QUERY).await?;
        if next < mark {
            tracing::warn!("the notification store was put back to an older state");
            check_all(shared).await?;
            return Ok(next);
        }
        for change in logs {
            if let Some(channel) = shared.hub.channel(&change.user)
                && !channel.believe((&change).into())
            {
                check(shared, &change.user).await?;
            }
        }
        mark = next;
        if !more {
            return Ok(mark);
        }
    }
}

async fn check_all(shared: &Shared) -> Result<(), StoreError> {
    for user in shared.hub.users() {
        check(shared, &user).await?;
    }
    Ok(())
}

async fn check(shared: &Shared, user: &UserId) -> Result<(), StoreError> {
    if let Some(channel) = shared.hub.channel(user) {
        let asked = channel.position();
        let head = shared.store.head(user).await?;
        channel.observe((&head).into(), asked);
    }
    Ok(())
}
