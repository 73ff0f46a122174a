use std::path::Path;
use std::sync::{Arc, Mutex};

use rusqlite::{Connection, params};
use tidings_sqlite::{Database, Options};
use tidings_stream::engine::Engine;
use tidings_stream::sqlite::SqliteEngine;

use crate::raw::{PAYLOAD, Raw};

/// One connection, used from the caller's own thread, with one row per message and one per claim.
pub(crate) struct Alone(Mutex<Connection>);

const HEADERS: Option<&str> = None;

pub(crate) async fn engines(folder: &Path) -> (Arc<dyn Engine>, Alone) {
    let database = Database::open(folder.join("streams.db"), &Options::default()).unwrap();
    let engine = SqliteEngine::open(database).await.unwrap();
    let connection = Connection::open(folder.join("alone.db")).unwrap();
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA wal_autocheckpoint = 4000;
             PRAGMA cache_size = -65536;
             CREATE TABLE message (number INTEGER PRIMARY KEY, at INTEGER, headers TEXT,
                                   payload BLOB);
             CREATE TABLE cursor (position INTEGER);
             INSERT INTO cursor VALUES (0);
             CREATE TABLE lease (claim INTEGER PRIMARY KEY, hi INTEGER);",
        )
        .unwrap();
    (Arc::new(engine), Alone(Mutex::new(connection)))
}

impl Raw for Alone {
    async fn publish(&self, batch: usize) {
        let mut connection = self.0.lock().unwrap();
        connection
            .execute_batch("PRAGMA synchronous = FULL")
            .unwrap();
        let transaction = connection.transaction().unwrap();
        {
            let mut insert = transaction
                .prepare_cached("INSERT INTO message (at, headers, payload) VALUES (?1, ?2, ?3)")
                .unwrap();
            for number in 0..i64::try_from(batch).unwrap() {
                insert
                    .execute(params![number, HEADERS, &PAYLOAD[..]])
                    .unwrap();
            }
        }
        transaction.commit().unwrap();
    }

    async fn consume(&self, batch: usize) -> usize {
        let mut connection = self.0.lock().unwrap();
        connection
            .execute_batch("PRAGMA synchronous = NORMAL")
            .unwrap();
        let transaction = connection.transaction().unwrap();
        let messages: Vec<(i64, Vec<u8>)> = {
            let position: i64 = transaction
                .prepare_cached("SELECT position FROM cursor")
                .unwrap()
                .query_row([], |row| row.get(0))
                .unwrap();
            let mut select = transaction
                .prepare_cached(
                    "SELECT number, payload FROM message WHERE number > ?1 ORDER BY number LIMIT ?2",
                )
                .unwrap();
            let rows = select.query_map(params![position, i64::try_from(batch).unwrap()], |row| {
                Ok((row.get(0)?, row.get(1)?))
            });
            rows.unwrap().collect::<Result<_, _>>().unwrap()
        };
        let Some((last, _)) = messages.last() else {
            return 0;
        };
        for statement in [
            "UPDATE cursor SET position = ?1",
            "INSERT INTO lease (hi) VALUES (?1)",
        ] {
            transaction
                .prepare_cached(statement)
                .unwrap()
                .execute([last])
                .unwrap();
        }
        transaction.commit().unwrap();
        let mut acknowledge = connection
            .prepare_cached("DELETE FROM lease WHERE hi = ?1")
            .unwrap();
        acknowledge.execute([last]).unwrap();
        messages.len()
    }

    async fn publish_one_per_transaction(&self) -> Option<()> {
        self.publish(1).await;
        Some(())
    }
}
