//! Whether the server can accept notifications: whether its database can be written.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use tidings_storage::{Records, StorageError};

/// How long a result is kept: the database is tried once in this time, for any number of requests.
const FRESH: Duration = Duration::from_secs(1);

/// How long the database may take.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The last result, and when it was.
#[derive(Debug, Default)]
pub(crate) struct Readiness {
    last: Mutex<Option<(Instant, Result<(), StorageError>)>>,
}

/// The database did not reply in time.
#[derive(Debug, thiserror::Error)]
#[error("the database did not reply within {TIMEOUT:?}")]
struct TimedOut;

impl Readiness {
    /// Tries to write, or returns the result of a moment ago.
    pub(crate) async fn check(&self, records: &dyn Records) -> Result<(), StorageError> {
        // The wait for another caller's try counts too, so that a stalled disk delays no caller longer.
        tokio::time::timeout(TIMEOUT, self.try_or_recall(records))
            .await
            .unwrap_or_else(|_| Err(StorageError::unavailable(TimedOut)))
    }

    async fn try_or_recall(&self, records: &dyn Records) -> Result<(), StorageError> {
        let mut last = self.last.lock().await;
        if let Some((when, result)) = &*last
            && when.elapsed() < FRESH
        {
            return result.clone();
        }
        let result = records.ready().await;
        *last = Some((Instant::now(), result.clone()));
        result
    }
}

#[cfg(test)]
mod tests {
    use tidings_storage::{Accept, Accepted, Change, Changed, Keep, Turn};

    use super::*;

    /// A database whose disk has stalled.
    #[derive(Debug)]
    struct Stalled;

    #[async_trait::async_trait]
    impl Records for Stalled {
        async fn accept(&self, _accept: Accept) -> Result<Accepted, StorageError> {
            std::future::pending().await
        }

        async fn change(&self, _: Change, _: Option<Keep>) -> Result<Changed, StorageError> {
            std::future::pending().await
        }

        async fn confirm(&self) -> Result<(), StorageError> {
            std::future::pending().await
        }

        async fn take_turn(&self, _turn: &Turn<'_>) -> Result<bool, StorageError> {
            std::future::pending().await
        }

        async fn ready(&self) -> Result<(), StorageError> {
            std::future::pending().await
        }

        async fn clean(&self) -> Result<usize, StorageError> {
            std::future::pending().await
        }

        async fn close(&self) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_stalled_disk_is_reported_to_every_caller_in_time() {
        let readiness = Readiness::default();
        let started = Instant::now();
        let checks = (0..3).map(|_| readiness.check(&Stalled));
        for result in futures_util::future::join_all(checks).await {
            assert!(matches!(result, Err(StorageError::Unavailable { .. })));
        }
        assert_eq!(started.elapsed(), TIMEOUT);
    }
}
