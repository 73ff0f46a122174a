//! SQLite alone, doing the least that accepting must do.

use std::time::Duration;

use rusqlite::{Connection, params};
use tidings_bench::{Latencies, Rate};
use tokio::time::Instant;

const TABLES: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = 4000;
    PRAGMA cache_size = -65536;
    CREATE TABLE log (user TEXT PRIMARY KEY, top INTEGER, unread INTEGER);
    CREATE TABLE event (user TEXT, seq INTEGER, at INTEGER, type TEXT, payload TEXT,
                        PRIMARY KEY (user, seq)) WITHOUT ROWID;";

const COUNT: &str = "INSERT INTO log VALUES (?1, 1, 1)
    ON CONFLICT DO UPDATE SET top = top + 1, unread = unread + 1 RETURNING top";

/// Commits events and counts of 100 users, so many events a commit, from one thread: as callers would share
/// commits that always wait. Returns the events a second.
pub(crate) fn commits(events: usize, length: Duration) -> Rate {
    let folder = tempfile::tempdir_in(".").unwrap();
    let mut connection = Connection::open(folder.path().join("raw.db")).unwrap();
    connection.execute_batch(TABLES).unwrap();
    let users: Vec<_> = (0..100).map(|n| format!("user{n}")).collect();
    let payload = "x".repeat(95);
    let (started, mut count, mut latencies) = (Instant::now(), 0, Latencies::default());
    while started.elapsed() < length {
        let began = Instant::now();
        let transaction = connection.transaction().unwrap();
        {
            let mut counted = transaction.prepare_cached(COUNT).unwrap();
            let insert = "INSERT INTO event VALUES (?1, ?2, 0, 'order.paid', ?3)";
            let mut insert = transaction.prepare_cached(insert).unwrap();
            for _ in 0..events {
                let user = &users[count % users.len()];
                let seq: i64 = counted.query_row([user], |row| row.get(0)).unwrap();
                insert.execute(params![user, seq, payload]).unwrap();
                count += 1;
            }
        }
        transaction.commit().unwrap();
        latencies.add(began.elapsed());
    }
    Rate::new(count, started.elapsed(), &latencies)
}
