//! The task that finds changes whose wake-up was lost.

use std::collections::HashSet;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tidings_reconnect::Trouble;
use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::instance::Instance;
use crate::{ChangeMark, Changes, StoreError, UserId};

/// Logs listed by one query.
const CHANGES_PER_QUERY: usize = 512;

/// Logs asked for by one query when all have to be looked at.
const HEADS_PER_QUERY: usize = 512;

/// Logs read at a time.
const CONCURRENT_READS: usize = 8;

/// Asks the store at once and at every interval which logs changed, until the store is closed.
///
/// One query serves all streams of the instance, and costs what has changed, not how many streams
/// or users there are. A log that has streams here is then read once for all of them. One that cannot be
/// read holds up no other: it is read again in the next sweep.
pub(crate) async fn run(instance: &Instance, poll_interval: Duration) {
    let mut ticks = interval_at(Instant::now() + poll_interval, poll_interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sweeper = Sweeper {
        instance,
        mark: None,
        must_check_all: false,
        failed: HashSet::new(),
    };
    let mut trouble = Trouble::new();
    loop {
        sweeper.must_check_all |= instance.hints.take_all_wanted();
        match sweeper.sweep().await {
            Ok(()) => {
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
        tokio::select! {
            _ = ticks.tick() => {}
            () = instance.hints.sweep_wanted() => {}
        }
    }
}

struct Sweeper<'a> {
    instance: &'a Instance,
    mark: Option<ChangeMark>,
    /// What the store lists may lack something: see [`Wake::Reconnected`](crate::Wake::Reconnected).
    must_check_all: bool,
    /// Those with streams whose logs changed before the mark and could not be read.
    failed: HashSet<UserId>,
}

impl Sweeper<'_> {
    /// Wakes the streams of logs that changed after the mark. Without a mark, every log with streams is
    /// checked.
    async fn sweep(&mut self) -> Result<(), StoreError> {
        let Some(mut mark) = self.mark.clone() else {
            let mark = self.instance.store.mark().await?;
            return self.check_all_from(mark).await;
        };
        let failed: Vec<_> = self.failed.iter().cloned().collect();
        let mut outcome = Ok(());
        loop {
            let Changes {
                mark: next,
                logs,
                more,
                rewound,
            } = self
                .instance
                .store
                .changes(&mark, CHANGES_PER_QUERY)
                .await?;
            if rewound {
                tracing::warn!(
                    "the notification store is in an older state than before, as after a restored backup; checking the logs of all open streams"
                );
                self.instance.hub.forget_inboxes();
            }
            if rewound || self.must_check_all {
                return self.check_all_from(next).await;
            }
            let has_news = |user: &UserId, seen| {
                let channel = self.instance.hub.channel(user);
                channel.is_some_and(|channel| !channel.knows(seen))
            };
            let changed = logs.into_iter().filter_map(|change| {
                has_news(&change.user, (&change.head).into()).then_some(change.user)
            });
            outcome = outcome.and(self.refresh(changed.collect()).await);
            self.mark = Some(next.clone());
            mark = next;
            if !more {
                break;
            }
        }
        outcome.and(self.refresh(failed).await)
    }

    /// Looks where every log with streams stands, to continue from a mark that is older.
    async fn check_all_from(&mut self, mark: ChangeMark) -> Result<(), StoreError> {
        check_all(self.instance).await?;
        self.mark = Some(mark);
        self.must_check_all = false;
        Ok(())
    }

    /// Reads these logs for their streams. Those that could not be read are noted, and one of the reasons is
    /// returned.
    async fn refresh(&mut self, users: Vec<UserId>) -> Result<(), StoreError> {
        let instance = self.instance;
        let read = async |user: UserId| {
            let read = instance.refresh(&user).await;
            (user, read)
        };
        let mut reads = stream::iter(users)
            .map(read)
            .buffer_unordered(CONCURRENT_READS);
        let mut outcome = Ok(());
        while let Some((user, read)) = reads.next().await {
            if read.is_ok() {
                self.failed.remove(&user);
            } else {
                self.failed.insert(user);
            }
            outcome = outcome.and(read);
        }
        outcome
    }
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
                    .map(|channel| (channel.asked(), channel))
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
