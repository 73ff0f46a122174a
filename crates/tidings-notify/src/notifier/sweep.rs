//! The task that finds changes whose wake-up was lost.

use std::sync::Arc;
use std::time::Duration;

use tidings_reconnect::Trouble;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::instance::Instance;
use crate::{ChangeMark, Changes, StoreError, UserId};

/// Logs listed by one query.
const CHANGES_PER_QUERY: usize = 512;

/// Logs asked for by one query when all have to be looked at.
const HEADS_PER_QUERY: usize = 512;

/// Logs read at a time.
const CONCURRENT_READS: usize = 8;

/// Asks the store at every interval which logs changed, until the store is closed.
///
/// One query serves all streams of the instance, and costs what has changed, not how many streams
/// or users there are. A log that has streams here is then read once for all of them.
pub(crate) async fn run(instance: &Arc<Instance>, poll_interval: Duration) {
    let mut ticks = interval(poll_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut mark = None;
    let mut trouble = Trouble::new();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = instance.hints.sweep_wanted() => {}
        }
        match sweep(instance, mark.as_ref()).await {
            Ok(next) => {
                mark = Some(next);
                if trouble.worked() {
                    tracing::info!("looking for changes in the notification store works again");
                }
            }
            Err(StoreError::Closed) => {
                instance.hub.close();
                return;
            }
            Err(error) => {
                instance.stats.sweep_failed();
                if trouble.failed() {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "failed to look for changes in the notification store, trying again at each interval"
                    );
                }
            }
        }
    }
}

/// Wakes the streams of logs that changed after the mark. Without a mark, every log with streams is
/// checked.
async fn sweep(
    instance: &Arc<Instance>,
    mark: Option<&ChangeMark>,
) -> Result<ChangeMark, StoreError> {
    let Some(mark) = mark else {
        let mark = instance.store.mark().await?;
        check_all(instance).await?;
        return Ok(mark);
    };
    let mut mark = mark.clone();
    loop {
        let Changes {
            mark: next,
            logs,
            more,
            rewound,
        } = instance.store.changes(&mark, CHANGES_PER_QUERY).await?;
        if rewound {
            tracing::warn!(
                "the notification store is in an older state than before, as after a restored backup; checking the logs of all open streams"
            );
            check_all(instance).await?;
            return Ok(next);
        }
        let has_news = |user: &UserId, seen| {
            let channel = instance.hub.channel(user);
            channel.is_some_and(|channel| !channel.knows(seen))
        };
        let changed = logs.into_iter().filter_map(|change| {
            has_news(&change.user, (&change.head).into()).then_some(change.user)
        });
        refresh_all(instance, changed).await?;
        mark = next;
        if !more {
            return Ok(mark);
        }
    }
}

async fn refresh_all(
    instance: &Arc<Instance>,
    users: impl Iterator<Item = UserId> + Send,
) -> Result<(), StoreError> {
    let mut running = JoinSet::new();
    for user in users {
        if running.len() >= CONCURRENT_READS
            && let Some(read) = running.join_next().await
        {
            read.map_err(StoreError::backend)??;
        }
        let instance = instance.clone();
        running.spawn(async move { instance.refresh(&user).await });
    }
    while let Some(read) = running.join_next().await {
        read.map_err(StoreError::backend)??;
    }
    Ok(())
}

/// Looks where every log with streams stands.
async fn check_all(instance: &Instance) -> Result<(), StoreError> {
    for users in instance.hub.users().chunks(HEADS_PER_QUERY) {
        let channels: Vec<_> = users
            .iter()
            .map(|user| {
                instance
                    .hub
                    .channel(user)
                    .map(|channel| (channel.position(), channel))
            })
            .collect();
        let heads = instance.store.heads(users).await?;
        for (channel, head) in channels.into_iter().zip(&heads) {
            if let Some((asked, channel)) = channel {
                channel.observe(head.into(), asked);
            }
        }
    }
    Ok(())
}
