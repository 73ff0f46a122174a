//! The task that finds changes whose wake-up was lost.

use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::instance::Instance;
use crate::{ChangeMark, Changes, StoreError, UserId};

/// Most logs listed by one query.
const CHANGES_PER_QUERY: usize = 512;

/// Asks the store at every interval which logs changed, until the store is closed.
///
/// One query serves all streams of the instance, and costs what has changed, not how many streams
/// or users there are.
pub(crate) async fn run(instance: &Instance, poll_interval: Duration) {
    let mut ticks = interval(poll_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut mark = None;
    loop {
        ticks.tick().await;
        match sweep(instance, mark).await {
            Ok(next) => mark = Some(next),
            Err(StoreError::Closed) => {
                instance.hub.close();
                return;
            }
            Err(error) => {
                instance.stats.sweep_failed();
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a sweep of the notification store failed, trying again at the next interval"
                );
            }
        }
    }
}

/// Wakes the streams of logs that changed after the mark. Without a mark, every log with streams is
/// checked.
async fn sweep(instance: &Instance, mark: Option<ChangeMark>) -> Result<ChangeMark, StoreError> {
    let Some(mut mark) = mark else {
        let mark = instance.store.mark().await?;
        check_all(instance).await?;
        return Ok(mark);
    };
    loop {
        let Changes {
            mark: next,
            logs,
            more,
        } = instance.store.changes(mark, CHANGES_PER_QUERY).await?;
        if next < mark {
            tracing::warn!(
                "the notification store was rewound to an older state, checking all logs with streams"
            );
            check_all(instance).await?;
            return Ok(next);
        }
        for change in logs {
            if let Some(channel) = instance.hub.channel(&change.user)
                && !channel.observe_past((&change).into())
            {
                check(instance, &change.user).await?;
            }
        }
        mark = next;
        if !more {
            return Ok(mark);
        }
    }
}

async fn check_all(instance: &Instance) -> Result<(), StoreError> {
    for user in instance.hub.users() {
        check(instance, &user).await?;
    }
    Ok(())
}

async fn check(instance: &Instance, user: &UserId) -> Result<(), StoreError> {
    if let Some(channel) = instance.hub.channel(user) {
        let asked = channel.position();
        let head = instance.store.head(user).await?;
        channel.observe((&head).into(), asked);
    }
    Ok(())
}
