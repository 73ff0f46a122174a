use std::sync::Arc;

use tidings_sqlite::{Database, Options};
use tidings_webhooks::conformance::Stores;
use tidings_webhooks::sqlite::SqliteStore;

tidings_webhooks::store_conformance_tests! {
    async fn sqlite() -> (Stores, (tempfile::TempDir, Database)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("webhooks.db");
        // Two connections, as two processes have them.
        let mut stores = Vec::new();
        let mut last = None;
        for _ in 0..2 {
            let database = Database::open(&path, &Options::default()).unwrap();
            stores.push(SqliteStore::open(database.clone()).await.unwrap());
            last = Some(database);
        }
        let [a, b] = [0, 1].map(|index| Arc::new(stores[index].clone()) as _);
        (Stores { a, b }, (folder, last.unwrap()))
    }
}
