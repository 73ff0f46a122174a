use std::path::Path;
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, params};
use tidings_notify::sqlite::{SqliteOptions, SqliteStore};
use tidings_notify::{Draft, Store};
use tidings_sqlite::{Database, Options};

use crate::raw::Raw;

/// One connection, used from the caller's own thread.
pub(crate) struct Alone(Mutex<Connection>);

pub(crate) async fn engines(folder: &Path) -> (Arc<dyn Store>, Alone) {
    let database = Database::open(folder.join("notify.db"), &Options::default()).unwrap();
    let store = SqliteStore::open(database, SqliteOptions::default())
        .await
        .unwrap();
    let connection = Connection::open(folder.join("alone.db")).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = FULL;
             PRAGMA wal_autocheckpoint = 4000;
             PRAGMA cache_size = -65536;
             CREATE TABLE log (user TEXT PRIMARY KEY, top INTEGER, unread INTEGER);
             CREATE TABLE event (user TEXT, seq INTEGER, at INTEGER, type TEXT, payload TEXT,
                                 PRIMARY KEY (user, seq)) WITHOUT ROWID;",
        )
        .unwrap();
    (Arc::new(store), Alone(Mutex::new(connection)))
}

impl Raw for Alone {
    async fn append(&self, drafts: Vec<Draft>) -> usize {
        let mut connection = self.0.lock().unwrap();
        let transaction = connection.transaction().unwrap();
        {
            let mut number = transaction
                .prepare_cached(
                    "INSERT INTO log VALUES (?1, 1, 1)
                     ON CONFLICT DO UPDATE SET top = top + 1, unread = unread + 1 RETURNING top",
                )
                .unwrap();
            let mut insert = transaction
                .prepare_cached("INSERT INTO event VALUES (?1, ?2, ?3, ?4, ?5)")
                .unwrap();
            for draft in &drafts {
                let user = draft.user().as_str();
                let seq: i64 = number.query_row([user], |row| row.get(0)).unwrap();
                let at = draft.timestamp().as_microsecond();
                let (kind, payload) = (draft.event_type().as_str(), draft.payload().as_str());
                insert
                    .execute(params![user, seq, at, kind, payload])
                    .unwrap();
            }
        }
        transaction.commit().unwrap();
        drafts.len()
    }
}
