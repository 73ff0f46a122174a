//! The stores keep the contract that they share.

use tidings_notify::sqlite::SqliteStore;
use tidings_notify::{DynStore, MemoryStore, store_conformance};
use tidings_sqlite::{Database, Options};

store_conformance!(memory, (MemoryStore::new(), ()));
store_conformance!(erased, (DynStore::new(MemoryStore::new()), ()));
store_conformance!(sqlite, fresh_sqlite().await);

async fn fresh_sqlite() -> (SqliteStore, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify.db");
    let database = Database::open(path, &Options::default()).unwrap();
    (SqliteStore::open(database).await.unwrap(), folder)
}
