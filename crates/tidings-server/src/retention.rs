//! Deletes what is older than the retention, in short steps.

use std::time::Duration;

use tidings_storage::{CLEANED_AT_ONCE, Records, Storage, StorageError, Turn};

use crate::panics::catch;
use jiff::Timestamp;
use tidings_webhooks::Webhooks;
use tokio::time::{MissedTickBehavior, sleep};
use tokio_util::sync::CancellationToken;

use crate::app::App;

/// How often the server looks for old data.
const INTERVAL: Duration = Duration::from_secs(10 * 60);

/// How long an instance that has crashed keeps the others from it. One that cleans takes its turn again before that.
const TURN: Duration = Duration::from_secs(15 * 60);

/// Cleans regularly, until the server stops.
pub(crate) async fn run(app: &App) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = app.stopping.cancelled() => return,
            _ = ticks.tick() => {}
        }
        let stopping: &CancellationToken = &app.stopping;
        stopping.run_until_cancelled(clean_in_turn(app)).await;
    }
}

/// Cleans, unless another instance does it.
async fn clean_in_turn(app: &App) {
    let turn = Turn {
        work: "housekeeping",
        instance: &app.instance,
        length: TURN,
    };
    let cleaning = async {
        let cutoff = Timestamp::now()
            .checked_sub(app.config.retention)
            .unwrap_or(Timestamp::MIN);
        clean(&app.storage, &app.webhooks, cutoff).await;
    };
    match in_turn(&*app.storage.records, &turn, cleaning).await {
        Ok(true) => {}
        Ok(false) => {
            catch(|| tracing::debug!("another instance deletes old data"));
        }
        Err(error) => report("data", Err(error)),
    }
}

/// Does work in a turn, which it keeps as long as the work takes. Returns whether the work was done: it ends when
/// another instance has taken the turn.
async fn in_turn(
    records: &dyn Records,
    turn: &Turn<'_>,
    work: impl Future<Output = ()>,
) -> Result<bool, StorageError> {
    if !records.take_turn(turn).await? {
        return Ok(false);
    }
    let kept_until_lost = async {
        loop {
            sleep(turn.length / 3).await;
            // In an outage the work fails by itself.
            if let Ok(false) = records.take_turn(turn).await {
                break;
            }
        }
    };
    tokio::select! {
        () = work => Ok(true),
        () = kept_until_lost => Ok(false),
    }
}

/// Deletes notifications and finished deliveries from before `cutoff`, and old idempotency keys. A
/// part that fails is logged, and does not keep the others from being cleaned.
pub(crate) async fn clean(storage: &Storage, webhooks: &Webhooks, cutoff: Timestamp) {
    let logs = storage.logs.cleanup(cutoff).await;
    report("notifications", logs.map_err(StorageError::from));
    report("deliveries", webhooks.clean(cutoff).await);
    report("idempotency keys", clean_keys(&*storage.records).await);
}

/// Ends also when keys grow too old as fast as they are deleted.
async fn clean_keys(records: &dyn Records) -> Result<u64, StorageError> {
    let mut total = 0;
    loop {
        let removed = records.clean().await?;
        total += removed as u64;
        if removed < usize::from(CLEANED_AT_ONCE) {
            return Ok(total);
        }
    }
}

fn report<E: std::error::Error + 'static>(what: &str, result: Result<u64, E>) {
    match result {
        Ok(removed) => catch(|| tracing::debug!(what, removed, "deleted old data")),
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            catch(|| tracing::warn!(error, what, "cannot delete old data, retrying later"))
        }
    };
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tidings_storage::{Accept, Accepted, Change, Changed, DatabaseUrl, Keep};

    use super::*;
    use tidings_notify::{Draft, EventType, Payload, UserId};
    use tidings_webhooks::{DeliveryQuery, EndpointSettings, NewEndpoint, Options, Owner};

    use crate::same_redis::tests::Turns;

    const fn turn_of(instance: &str) -> Turn<'_> {
        Turn {
            work: "work",
            instance,
            length: TURN,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn regression_a_turn_is_kept_as_long_as_its_work_takes() {
        let records = Turns::default();
        let work = async {
            for _ in 0..10 {
                sleep(TURN / 2).await;
                assert!(!records.take_turn(&turn_of("other")).await.unwrap());
            }
        };
        let done = in_turn(&records, &turn_of("first"), work).await;
        assert!(done.unwrap());
    }

    #[tokio::test(start_paused = true)]
    async fn work_ends_when_another_instance_has_its_turn() {
        let records = Turns::default();
        let work = async {
            records.give(&turn_of("other"));
            std::future::pending::<()>().await;
        };
        let done = in_turn(&records, &turn_of("first"), work).await;
        assert!(!done.unwrap());
    }

    /// Has keys of which a few grow too old in the time that one cleaning takes.
    #[derive(Debug, Default)]
    struct Aging {
        cleanings: AtomicUsize,
    }

    #[async_trait::async_trait]
    impl Records for Aging {
        async fn accept(&self, _: Accept) -> Result<Accepted, StorageError> {
            Err(StorageError::Closed)
        }

        async fn change(&self, _: Change, _: Option<Keep>) -> Result<Changed, StorageError> {
            Err(StorageError::Closed)
        }

        async fn confirm(&self) -> Result<(), StorageError> {
            Err(StorageError::Closed)
        }

        async fn take_turn(&self, _: &Turn<'_>) -> Result<bool, StorageError> {
            Err(StorageError::Closed)
        }

        async fn ready(&self) -> Result<(), StorageError> {
            Err(StorageError::Closed)
        }

        async fn clean(&self) -> Result<usize, StorageError> {
            let cleaned = self.cleanings.fetch_add(1, Ordering::Relaxed);
            assert!(cleaned < 100, "the cleaning has no end");
            Ok(if cleaned < 2 { 1000 } else { 5 })
        }

        async fn close(&self) {}
    }

    #[tokio::test]
    async fn regression_cleaning_ends_although_keys_grow_too_old_all_the_time() {
        assert_eq!(clean_keys(&Aging::default()).await.unwrap(), 2005);
    }

    async fn open(folder: &tempfile::TempDir) -> (Storage, Webhooks) {
        let url = DatabaseUrl::Sqlite(folder.path().join("tidings.db"));
        let storage = Storage::open(&url, None).await.unwrap();
        let (store, streams) = (storage.webhooks.clone(), storage.streams.clone());
        let webhooks = Webhooks::start(store, streams, Options::default()).await;
        (storage, webhooks.unwrap())
    }

    async fn accept(storage: &Storage) {
        let user = UserId::new("anna").unwrap();
        let payload = Payload::from_value(&1).unwrap();
        let drafts = vec![Draft::new(user, EventType::new("count").unwrap(), payload)];
        let accept = Accept { drafts, once: None };
        let accepted = storage.records.accept(accept).await.unwrap();
        assert!(matches!(accepted, Accepted::Stored { .. }));
    }

    async fn kept(storage: &Storage) -> u64 {
        let user = UserId::new("anna").unwrap();
        let head = storage.logs.head(&user).await.unwrap();
        head.top_seq + 1 - head.first_seq
    }

    #[tokio::test]
    async fn what_is_older_than_the_cutoff_is_deleted_and_the_rest_kept() {
        let folder = tempfile::tempdir().unwrap();
        let (storage, webhooks) = open(&folder).await;
        // A schedule without a second attempt, and no listener: the test event fails.
        let mut settings = EndpointSettings::new("http://127.0.0.1:1/");
        settings.schedule = Some(vec![Duration::ZERO]);
        let new = NewEndpoint::new(Owner::Operator, settings);
        let (endpoint, _) = webhooks.create_endpoint(new).await.unwrap();
        let delivery = webhooks.send_test(endpoint.id).await.unwrap().unwrap();
        while webhooks.pending().await.unwrap() > 0 {
            tokio::task::yield_now().await;
        }
        accept(&storage).await;

        clean(&storage, &webhooks, Timestamp::UNIX_EPOCH).await;
        assert_eq!(kept(&storage).await, 1);
        assert!(webhooks.delivery(delivery).await.unwrap().is_some());

        let future = Timestamp::now() + Duration::from_secs(60);
        clean(&storage, &webhooks, future).await;
        assert_eq!(kept(&storage).await, 0);
        assert!(webhooks.delivery(delivery).await.unwrap().is_none());
    }

    #[tokio::test]
    async fn regression_a_part_that_fails_does_not_keep_the_others_from_being_cleaned() {
        let folder = tempfile::tempdir().unwrap();
        let (storage, webhooks) = open(&folder).await;
        accept(&storage).await;
        let new = NewEndpoint::new(
            Owner::Operator,
            EndpointSettings::new("http://127.0.0.1:1/"),
        );
        let (endpoint, _) = webhooks.create_endpoint(new).await.unwrap();
        webhooks.send_test(endpoint.id).await.unwrap();
        webhooks.remove_endpoint(endpoint.id).await.unwrap();
        while webhooks.pending().await.unwrap() > 0 {
            tokio::task::yield_now().await;
        }
        storage.logs.close().await;
        let future = Timestamp::now() + Duration::from_secs(60);
        clean(&storage, &webhooks, future).await;
        let left = webhooks.deliveries(&DeliveryQuery::newest(1)).await;
        assert!(left.unwrap().is_empty());
    }
}
