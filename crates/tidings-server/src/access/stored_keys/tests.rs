use std::sync::atomic::{AtomicBool, AtomicUsize};

use async_trait::async_trait;
use futures_util::FutureExt;
use tidings_storage::{Scope, Scopes};
use tidings_test_support::{Log, Panics};
use tokio::sync::Mutex as AsyncMutex;

use super::*;
use crate::Config;
use crate::access::Access;

/// A store in memory that counts how often it is read, and fails on demand.
#[derive(Debug, Default)]
struct Store {
    keys: AsyncMutex<Vec<StoredKey>>,
    reads: AtomicUsize,
    fails: AtomicBool,
    /// The next reading panics.
    panics: AtomicBool,
    unreadable: AsyncMutex<Vec<String>>,
}

impl Store {
    fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    fn fail(&self, fails: bool) {
        self.fails.store(fails, Ordering::Relaxed);
    }

    /// Adds a key, as another instance does.
    async fn add(&self) -> (String, StoredKey) {
        self.add_until(None).await
    }

    async fn add_until(&self, end: Option<Timestamp>) -> (String, StoredKey) {
        let scopes = Scopes::new(vec![Scope::Read]).unwrap();
        let (text, key) = new_key::new_key("test".to_owned(), scopes, end).unwrap();
        self.keys.lock().await.push(key.clone());
        (text, key)
    }
}

#[async_trait]
impl ApiKeyStore for Store {
    async fn all(&self) -> Result<AllKeys, StorageError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        assert!(!self.panics.swap(false, Ordering::Relaxed), "on purpose");
        if self.fails.load(Ordering::Relaxed) {
            return Err(StorageError::Locked);
        }
        Ok(AllKeys {
            keys: self.keys.lock().await.clone(),
            unreadable: self.unreadable.lock().await.clone(),
        })
    }

    async fn remove(&self, id: &str) -> Result<bool, StorageError> {
        self.keys.lock().await.retain(|key| key.id != id);
        Ok(true)
    }

    async fn remove_expired(&self, before: Timestamp) -> Result<(), StorageError> {
        let mut keys = self.keys.lock().await;
        keys.retain(|key| key.expires_at.is_none_or(|end| end >= before));
        Ok(())
    }

    async fn record_use(&self, uses: &[(String, Timestamp)]) -> Result<(), StorageError> {
        for key in &mut *self.keys.lock().await {
            let last = uses.iter().find(|(id, _)| *id == key.id);
            key.last_used_at = last.map(|(_, at)| *at).or(key.last_used_at);
        }
        Ok(())
    }
}

async fn open() -> (Arc<Store>, StoredKeys) {
    let store = Arc::new(Store::default());
    let keys = StoredKeys::open(Arc::clone(&store) as Arc<dyn ApiKeyStore>).await;
    (store, keys.unwrap())
}

async fn is_known(keys: &StoredKeys, text: &str) -> bool {
    keys.find(text).await.unwrap().is_some()
}

#[tokio::test(start_paused = true)]
async fn known_keys_cost_no_read_and_unknown_ones_at_most_one_a_second() {
    let (store, keys) = open().await;
    tokio::time::advance(AT_MOST_EVERY).await;
    let (text, _) = store.add().await;
    assert!(is_known(&keys, &text).await, "new on another instance");
    assert_eq!(store.reads(), 2);
    let (unknown, _) = {
        let scopes = Scopes::new(vec![Scope::Read]).unwrap();
        new_key::new_key("unknown".to_owned(), scopes, None).unwrap()
    };
    for _ in 0..100 {
        assert!(is_known(&keys, &text).await);
        assert!(!is_known(&keys, &unknown).await);
        assert!(!is_known(&keys, "not-a-key-of-the-database").await);
    }
    assert_eq!(store.reads(), 2);
    tokio::time::advance(AT_MOST_EVERY).await;
    for _ in 0..100 {
        assert!(!is_known(&keys, &unknown).await);
    }
    assert_eq!(store.reads(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_another_instance_revoked_is_refused_and_ends_its_streams_in_seconds() {
    let (store, keys) = open().await;
    let (text, key) = store.add().await;
    let (other, _) = store.add().await;
    keys.refresh().await.unwrap();
    let known = keys.find(&text).await.unwrap().unwrap();
    let kept = keys.find(&other).await.unwrap().unwrap();
    store.remove(&key.id).await.unwrap();
    tokio::select! {
        () = known.revoked.cancelled() => {}
        () = keys.run() => {}
        () = tokio::time::sleep(PERIOD * 2) => panic!("the streams of the key go on"),
    }
    assert!(!is_known(&keys, &text).await);
    assert!(!kept.revoked.is_cancelled());
    let again = keys.find(&other).await.unwrap().unwrap();
    assert!(
        Arc::ptr_eq(&kept, &again),
        "its streams are ended by the same token"
    );
}

#[tokio::test(start_paused = true)]
async fn regression_keys_are_read_although_a_tracing_layer_and_the_store_panic() {
    let store = Arc::new(Store::default());
    let (text, key) = store.add().await;
    let config = Config::from_flags(["--dev"]).unwrap();
    let access = Access::open(&config, Arc::clone(&store) as Arc<dyn ApiKeyStore>);
    let access = access.await.unwrap();
    let keys = &access.api_keys.stored;
    let known = keys.find(&text).await.unwrap().unwrap();
    let layer = Panics::at("tidings_server");
    let _tracing = tidings_test_support::set_default(layer.clone());

    let changes = async {
        // Each begins with a line in the log, and ends with one.
        store.fail(true);
        while layer.count() < 1 {
            tokio::time::sleep(PERIOD).await;
        }
        store.fail(false);
        while layer.count() < 2 {
            tokio::time::sleep(PERIOD).await;
        }
        *store.unreadable.lock().await = vec!["key_1".to_owned()];
        let (new, _) = store.add().await;
        tokio::time::sleep(PERIOD * 2).await;
        assert!(is_known(keys, &new).await);
        assert_eq!(layer.count(), 3);
        store.panics.store(true, Ordering::Relaxed);
        while store.panics.load(Ordering::Relaxed) {
            tokio::time::sleep(PERIOD).await;
        }
        store.remove(&key.id).await.unwrap();
        known.revoked.cancelled().await;
    };
    tokio::select! {
        () = changes => {}
        () = access.run() => {}
        () = tokio::time::sleep(PERIOD * 100) => panic!("the keys are read no more"),
    }
}

#[tokio::test(start_paused = true)]
async fn regression_a_revoked_key_is_refused_at_once_although_the_keys_cannot_be_read() {
    let store = Arc::new(Store::default());
    let (text, key) = store.add().await;
    let (other, _) = store.add().await;
    let config = Config::from_flags(["--dev"]).unwrap();
    let access = Access::open(&config, Arc::clone(&store) as Arc<dyn ApiKeyStore>);
    let access = access.await.unwrap();
    let keys = &access.api_keys.stored;
    let known = keys.find(&text).await.unwrap().unwrap();

    // An earlier reading that has found the key is still under way.
    let held = store.unreadable.lock().await;
    let mut reading = Box::pin(keys.refresh());
    assert!((&mut reading).now_or_never().is_none());
    store.fail(true);
    let mut revoking = Box::pin(access.revoke_key(&key.id));
    assert!((&mut revoking).now_or_never().is_none());
    drop(held);
    reading.await.unwrap();
    assert!(revoking.await.unwrap());

    assert!(known.revoked.is_cancelled(), "its streams go on");
    assert!(!matches!(keys.find(&text).await, Ok(Some(_))));
    assert!(is_known(keys, &other).await);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_is_not_blamed_on_the_key() {
    let (store, keys) = open().await;
    let (text, _) = store.add().await;
    keys.refresh().await.unwrap();
    let (new, _) = store.add().await;
    store.fail(true);
    tokio::time::advance(AT_MOST_EVERY).await;
    assert!(is_known(&keys, &text).await, "known keys stay valid");
    let reads = store.reads();
    for _ in 0..100 {
        assert!(matches!(keys.find(&new).await, Err(StorageError::Locked)));
    }
    assert_eq!(store.reads(), reads + 1);
    assert!(
        is_known(&keys, &text).await,
        "also after a reading that failed"
    );
    store.fail(false);
    tokio::time::advance(AT_MOST_EVERY).await;
    assert!(is_known(&keys, &new).await);
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_is_one_line_and_so_is_its_end() {
    let log = Log::default();
    let _listening = log.listen();
    let (store, keys) = open().await;
    let outages = async {
        for outage in 1..=2 {
            for fails in [true, false] {
                store.fail(fails);
                let reads = store.reads();
                tokio::time::sleep(PERIOD * 10).await;
                assert!(store.reads() - reads >= 9);
                let begun = log.lines("cannot read the API keys, trying again");
                assert_eq!(begun.len(), outage, "{begun:?}");
            }
            let ended = log.lines("reading the API keys again");
            assert_eq!(ended.len(), outage, "{ended:?}");
        }
    };
    tokio::select! {
        () = outages => {}
        () = keys.run() => {}
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_use_is_written_about_once_a_minute() {
    let (store, keys) = open().await;
    let (text, key) = store.add().await;
    let (_, unused) = store.add().await;
    keys.refresh().await.unwrap();
    let before = Timestamp::now();
    let wait = async {
        assert!(is_known(&keys, &text).await);
        tokio::time::sleep(RECORD_EVERY.saturating_sub(PERIOD)).await;
        let stored = store.keys.lock().await.clone();
        assert!(stored.iter().all(|stored| stored.last_used_at.is_none()));
        tokio::time::sleep(PERIOD * 3).await;
    };
    tokio::select! {
        () = wait => {}
        () = keys.run() => {}
    }
    let stored = store.keys.lock().await.clone();
    let of = |id: &str| stored.iter().find(|key| key.id == id).unwrap().last_used_at;
    let used = of(&key.id).unwrap();
    assert!((used.as_microsecond() - before.as_microsecond()).abs() < 60_000_000);
    assert_eq!(of(&unused.id), None);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_expired_long_ago_is_forgotten() {
    let (store, keys) = open().await;
    let ago = |time: Duration| Some(Timestamp::now() - time);
    let (_, old) = store.add_until(ago(FORGET_AFTER + PERIOD)).await;
    let (recent, _) = store.add_until(ago(FORGET_AFTER / 2)).await;
    let (lasting, _) = store.add().await;
    tokio::select! {
        () = keys.run() => {}
        () = tokio::time::sleep(RECORD_EVERY + PERIOD * 3) => {}
    }
    let ids: Vec<_> = store
        .keys
        .lock()
        .await
        .iter()
        .map(|key| key.id.clone())
        .collect();
    assert!(ids.len() == 2 && !ids.contains(&old.id), "{ids:?}");
    // Who sends it reads that it has expired.
    assert!(is_known(&keys, &recent).await && is_known(&keys, &lasting).await);
}

#[tokio::test(start_paused = true)]
async fn regression_keys_are_valid_beside_one_that_cannot_be_read() {
    let (store, keys) = open().await;
    let (text, _) = store.add().await;
    *store.unreadable.lock().await = vec!["key_1".to_owned()];
    for _ in 0..2 {
        keys.refresh().await.unwrap();
        assert!(is_known(&keys, &text).await);
        assert_eq!(*keys.unreadable.lock().unwrap(), ["key_1"]);
    }
}
