//! SQLite alone, doing the least that accepting must do.

use std::time::Duration;

use rusqlite::{CachedStatement, Connection, Transaction, params};
use tempfile::TempDir;
use tidings_bench::{Latencies, Rate, number};
use tokio::time::Instant;

use crate::load::POSTERS;

const TABLES: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = FULL;
    PRAGMA wal_autocheckpoint = 4000;
    PRAGMA cache_size = -16384;
    CREATE TABLE log (user TEXT PRIMARY KEY, top INTEGER, unread INTEGER);
    CREATE TABLE event (user TEXT, seq INTEGER, at INTEGER, type TEXT, payload TEXT,
                        PRIMARY KEY (user, seq)) WITHOUT ROWID;";

/// The least that has a list of what each endpoint had, and its health.
const ENDPOINT_TABLES: &str = "
    CREATE TABLE delivery (endpoint INTEGER, id INTEGER, state INTEGER,
                           PRIMARY KEY (endpoint, id)) WITHOUT ROWID;
    CREATE TABLE health (endpoint INTEGER PRIMARY KEY, delivered INTEGER, at INTEGER);";

/// Divides no number of endpoints: each has its turn.
const A_PRIME: usize = 7919;

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

/// The deliveries a second to so many endpoints in turn, 64 a commit, as many as there are to be. The outcome of each is
/// written by the commit after that of the delivery. Those who follow each other are not neighbours in the file, because
/// ids of endpoints are random.
pub(crate) fn deliveries_among(endpoints: usize, deliveries: usize) -> f64 {
    let endpoint_of = |id: usize| id * A_PRIME % endpoints;
    let mut logs = Logs::new();
    logs.connection.execute_batch(ENDPOINT_TABLES).unwrap();
    let transaction = logs.connection.transaction().unwrap();
    for endpoint in 0..endpoints {
        let mut insert = prepared(&transaction, "INSERT INTO health VALUES (?1, 0, 0)");
        insert.execute([endpoint]).unwrap();
    }
    transaction.commit().unwrap();
    let started = Instant::now();
    for first in (0..deliveries).step_by(POSTERS) {
        let transaction = logs.connection.transaction().unwrap();
        for id in first..(first + POSTERS).min(deliveries) {
            let mut insert = prepared(&transaction, "INSERT INTO delivery VALUES (?1, ?2, 0)");
            insert.execute([endpoint_of(id), id]).unwrap();
            let Some(ended) = id.checked_sub(POSTERS) else {
                continue;
            };
            let end = "UPDATE delivery SET state = 1 WHERE endpoint = ?1 AND id = ?2";
            let tally = "UPDATE health SET delivered = delivered + 1, at = ?2 WHERE endpoint = ?1";
            for outcome in [end, tally] {
                let mut outcome = prepared(&transaction, outcome);
                outcome.execute([endpoint_of(ended), ended]).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
    number(deliveries) / started.elapsed().as_secs_f64()
}

fn prepared<'a>(transaction: &'a Transaction<'_>, statement: &str) -> CachedStatement<'a> {
    transaction.prepare_cached(statement).unwrap()
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
