//! Notices that another instance on the same database has another `--redis`, or none.
//!
//! Each would see only the presence of those with the same setting, and nothing else would show it. The
//! setting is a turn that instances take: it is free for the next setting once no instance has this one.

use std::time::Duration;

use tidings_storage::{Records, Turn};
use tokio::time::{Instant, MissedTickBehavior};

use crate::config::Config;

/// What the turn is called.
const WORK: &str = "redis";

/// How instances without Redis call their setting.
const NONE: &str = "none";

/// Compares the setting of this instance with those of the others.
#[derive(Debug)]
pub(crate) struct SameRedis {
    /// The URL, without the user and the password.
    setting: String,
    /// How long the setting of an instance that has ended counts.
    length: Duration,
}

impl SameRedis {
    pub(crate) fn new(config: &Config) -> Self {
        let redis = config.redis.as_ref();
        Self {
            setting: redis.map_or_else(|| NONE.to_owned(), ToString::to_string),
            length: config.lease * 2,
        }
    }

    /// Looks again and again, and logs a difference once. Never returns.
    pub(crate) async fn watch(&self, records: &dyn Records) {
        let mut ticks = tokio::time::interval(self.length / 4);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut differs_since = None;
        let mut was_logged = false;
        loop {
            ticks.tick().await;
            let turn = Turn {
                work: WORK,
                instance: &self.setting,
                length: self.length,
            };
            match records.take_turn(&turn).await {
                Ok(true) => {
                    differs_since = None;
                    was_logged = false;
                }
                Ok(false) => {
                    let since = *differs_since.get_or_insert_with(Instant::now);
                    // The setting of an instance that has ended is over by then.
                    if since.elapsed() > self.length && !was_logged {
                        was_logged = true;
                        tracing::warn!(
                            redis = self.setting,
                            "another instance on this database has another --redis, or one of them has none: \
                             each sees only the presence of instances with its own setting"
                        );
                    }
                }
                // Readiness reports an outage of the database.
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::debug!(error, "cannot compare --redis with other instances");
                }
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::sync::Mutex;

    use tidings_storage::{Accept, Accepted, Change, Changed, Keep, StorageError};
    use tidings_test_support::Log;

    use super::*;

    const LENGTH: Duration = Duration::from_secs(60);

    /// Keeps the turn of one kind of work as a database does.
    #[derive(Debug, Default)]
    pub(crate) struct Turns(Mutex<Option<(String, Instant)>>);

    impl Turns {
        /// Gives the turn to an instance, as if that of another had ended.
        pub(crate) fn give(&self, turn: &Turn<'_>) {
            let until = Instant::now() + turn.length;
            *self.0.lock().unwrap() = Some((turn.instance.to_owned(), until));
        }
    }

    #[async_trait::async_trait]
    impl Records for Turns {
        async fn accept(&self, _accept: Accept) -> Result<Accepted, StorageError> {
            Err(StorageError::Closed)
        }

        async fn change(&self, _: Change, _: Option<Keep>) -> Result<Changed, StorageError> {
            Err(StorageError::Closed)
        }

        async fn confirm(&self) -> Result<(), StorageError> {
            Err(StorageError::Closed)
        }

        async fn take_turn(&self, turn: &Turn<'_>) -> Result<bool, StorageError> {
            let taken = self.0.lock().unwrap();
            let now = Instant::now();
            if let Some((instance, until)) = &*taken
                && instance != turn.instance
                && *until >= now
            {
                return Ok(false);
            }
            drop(taken);
            self.give(turn);
            Ok(true)
        }

        async fn ready(&self) -> Result<(), StorageError> {
            Err(StorageError::Closed)
        }

        async fn clean(&self) -> Result<usize, StorageError> {
            Err(StorageError::Closed)
        }

        async fn close(&self) {}
    }

    fn with(setting: &str) -> SameRedis {
        SameRedis {
            setting: setting.to_owned(),
            length: LENGTH,
        }
    }

    /// Runs one setting beside the other for so long.
    async fn beside(records: &Turns, first: &str, second: &str, time: Duration) {
        let (first, second) = (with(first), with(second));
        let both = async { tokio::join!(first.watch(records), second.watch(records)) };
        let ended = tokio::time::timeout(time, both).await;
        assert!(ended.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn another_setting_of_a_running_instance_is_logged_once_and_that_of_an_ended_one_is_not()
    {
        let (log, records) = (Log::default(), Turns::default());
        let _listening = log.listen();
        let text = "has another --redis";
        beside(&records, "redis://a/0", "redis://a/0", LENGTH * 10).await;
        // The instances with the setting have ended, and others begin.
        beside(&records, "none", "none", LENGTH * 10).await;
        assert!(log.lines(text).is_empty(), "{:?}", log.lines(text));
        beside(&records, "none", "redis://b/0", LENGTH * 10).await;
        let lines = log.lines(text);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("redis://b/0"), "{lines:?}");
    }
}
