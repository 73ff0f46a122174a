//! SQLite alone, doing the least that accepting must do.

use std::time::Duration;

use rusqlite::{Connection, Transaction, params};
use tempfile::TempDir;
use tidings_bench::{Latencies, Rate};
use tokio::time::Instant;

use crate::load::POSTERS;

/// As the server has them.
pub(crate) const PRAGMAS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = 4000;
    PRAGMA cache_size = -16384;";

const TABLES: &str = "
    CREATE TABLE log (user TEXT PRIMARY KEY, top INTEGER, unread INTEGER);
    CREATE TABLE event (user TEXT, seq INTEGER, at INTEGER, type TEXT, payload TEXT,
                        PRIMARY KEY (user, seq)) WITHOUT ROWID;";

const COUNT: &str = "INSERT INTO log VALUES (?1, 1, 1)
    ON CONFLICT DO UPDATE SET top = top + 1, unread = unread + 1 RETURNING top";

const INSERT: &str = "INSERT INTO event VALUES (?1, ?2, 0, 'order.paid', ?3)";

/// A file with the logs of users.
pub(crate) struct Logs {
    connection: Connection,
    _folder: TempDir,
}

/// Commits events and counts of 100 users, so many events a commit, from one thread: as callers would share
/// commits that always wait. Returns the events per second.
pub(crate) fn commits(events: usize, length: Duration) -> Rate {
    let users: Vec<_> = (0..100).map(user).collect();
    Logs::new().commit(&users, events, length)
}

/// The events per second of so many users, spread over as many as there are, 64 a commit. Each has an event already.
pub(crate) fn rate_among(few: usize, users: usize, length: Duration) -> f64 {
    let mut logs = Logs::new();
    let all: Vec<_> = (0..users).map(user).collect();
    let transaction = logs.connection.transaction().unwrap();
    for chunk in all.chunks(POSTERS) {
        append(&transaction, chunk);
    }
    transaction.commit().unwrap();
    let spread: Vec<_> = all.into_iter().step_by(users / few).collect();
    logs.commit(&spread, POSTERS, length).per_second
}

fn user(n: usize) -> String {
    format!("user{n}")
}

fn append<'a>(transaction: &Transaction<'_>, users: impl IntoIterator<Item = &'a String>) {
    let mut counted = transaction.prepare_cached(COUNT).unwrap();
    let mut insert = transaction.prepare_cached(INSERT).unwrap();
    let payload = "x".repeat(95);
    for user in users {
        let seq: i64 = counted.query_row([user], |row| row.get(0)).unwrap();
        insert.execute(params![user, seq, payload]).unwrap();
    }
}

impl Logs {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir_in(".").unwrap();
        let connection = Connection::open(folder.path().join("raw.db")).unwrap();
        connection.execute_batch(PRAGMAS).unwrap();
        connection.execute_batch(TABLES).unwrap();
        Self {
            connection,
            _folder: folder,
        }
    }

    /// Commits an event of each of these users.
    pub(crate) fn append<'a>(&mut self, users: impl IntoIterator<Item = &'a String>) {
        let transaction = self.connection.transaction().unwrap();
        append(&transaction, users);
        transaction.commit().unwrap();
    }

    /// Gives each user an event in turn, so many a commit.
    fn commit(&mut self, users: &[String], events: usize, length: Duration) -> Rate {
        let mut turns = users.iter().cycle();
        let (started, mut count, mut latencies) = (Instant::now(), 0, Latencies::default());
        while started.elapsed() < length {
            let began = Instant::now();
            self.append(turns.by_ref().take(events));
            count += events;
            latencies.add(began.elapsed());
        }
        Rate::new(count, started.elapsed(), &latencies)
    }
}
