//! The tables.

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use crate::{Result, Retention, StreamName};

/// Whose tables these are, in the file's list of schemas.
pub(in crate::engine) const COMPONENT: &str = "stream";

/// The steps of the migration. One that was released is never changed; a change is another step.
pub(in crate::engine) const STEPS: &[&str] = &["
CREATE TABLE stream (
    stream_id   INTEGER PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    head        INTEGER NOT NULL DEFAULT 0, -- number of the newest message, 0 before the first
    tail        INTEGER NOT NULL DEFAULT 1, -- number of the oldest kept; head + 1 when none is
    max_len     INTEGER,                    -- NULL: no bound
    max_age     INTEGER,                    -- milliseconds; NULL: no bound
    trim_pending INTEGER NOT NULL DEFAULT 0 -- 1: the bounds reach what a group has yet to handle
) STRICT;

CREATE TABLE stream_message (
    key         INTEGER PRIMARY KEY,        -- stream_id << 40 | number
    created_at  INTEGER NOT NULL,           -- wall clock, milliseconds since 1970
    headers     TEXT,                       -- a JSON object; NULL: none
    payload     BLOB NOT NULL
) STRICT;

CREATE TABLE stream_group (
    group_id    INTEGER PRIMARY KEY,
    stream_id   INTEGER NOT NULL REFERENCES stream,
    name        TEXT NOT NULL,
    cursor      INTEGER NOT NULL,           -- number of the newest message that was claimed
    claims      INTEGER NOT NULL DEFAULT 0, -- number of the last claim
    dead_lettered INTEGER NOT NULL DEFAULT 0,
    lost_to_trim  INTEGER NOT NULL DEFAULT 0,
    UNIQUE (stream_id, name)
) STRICT;

CREATE TABLE stream_lease (
    group_id    INTEGER NOT NULL,
    claim       INTEGER NOT NULL,
    lo          INTEGER NOT NULL,           -- number of the first message
    hi          INTEGER NOT NULL,           -- number of the last
    deadline    INTEGER NOT NULL,           -- milliseconds of the engine's clock
    settled     BLOB NOT NULL,              -- bit i: message lo + i is settled, or has a row below
    consumer    TEXT NOT NULL,
    since       INTEGER NOT NULL,           -- when it was claimed
    PRIMARY KEY (group_id, claim)
) STRICT, WITHOUT ROWID;

CREATE INDEX stream_lease_deadline ON stream_lease (group_id, deadline);
CREATE INDEX stream_lease_lo ON stream_lease (group_id, lo);

CREATE TABLE stream_retry (
    group_id    INTEGER NOT NULL,
    number      INTEGER NOT NULL,
    due         INTEGER NOT NULL,           -- when it may be claimed, or claimed again
    delay       INTEGER NOT NULL,           -- how long before that it was put here
    attempts    INTEGER NOT NULL,           -- attempts that have begun
    claim       INTEGER,                    -- who has it; NULL: it waits
    last_error  TEXT,
    consumer    TEXT,                       -- who has it; NULL: it waits
    since       INTEGER NOT NULL,           -- when it was claimed, or put here
    ordering_key TEXT,                      -- as in JSON; of a group that keeps the order, else NULL
    PRIMARY KEY (group_id, number)
) STRICT, WITHOUT ROWID;

CREATE INDEX stream_retry_due ON stream_retry (group_id, due);
CREATE INDEX stream_retry_key ON stream_retry (group_id, ordering_key, number)
    WHERE ordering_key IS NOT NULL;
CREATE INDEX stream_retry_claimed ON stream_retry (group_id, due) WHERE claim IS NOT NULL;

CREATE TABLE stream_publish_key (
    stream_id   INTEGER NOT NULL,
    key         TEXT NOT NULL,
    number      INTEGER NOT NULL,           -- of the first message under the key
    expires     INTEGER NOT NULL,           -- milliseconds of the engine's clock
    PRIMARY KEY (stream_id, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX stream_publish_key_expires ON stream_publish_key (expires);

CREATE TABLE stream_member (
    group_id    INTEGER NOT NULL,
    consumer    TEXT NOT NULL,
    expires     INTEGER NOT NULL,           -- until when it is taken to be alive
    PRIMARY KEY (group_id, consumer)
) STRICT, WITHOUT ROWID;
"];

/// `due` and `delay` of a message in `stream_retry` that waits for earlier ones of its ordering key.
pub(super) const HELD_BACK: i64 = 1 << 60;

/// How far a stream's id is shifted in `stream_message.key`: room for 10^12 messages per stream and
/// for eight million streams.
pub(super) const NUMBER_BITS: u32 = 40;

/// Largest number of a message.
pub(super) const MAX_NUMBER: i64 = (1 << NUMBER_BITS) - 1;

/// The key of a message.
pub(super) fn key(stream_id: i64, number: i64) -> i64 {
    (stream_id << NUMBER_BITS) | number
}

/// The row of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamRow {
    pub(super) stream_id: i64,
    pub(super) head: i64,
    pub(super) tail: i64,
    pub(super) max_len: Option<i64>,
    pub(super) max_age: Option<i64>,
    pub(super) trim_pending: bool,
}

/// The columns that [`StreamRow::read`] reads, in its order.
pub(super) const STREAM_COLUMNS: &str = "stream_id, head, tail, max_len, max_age, trim_pending";

impl StreamRow {
    pub(super) fn find(
        connection: &Connection,
        stream: &StreamName,
    ) -> Result<Option<Self>, rusqlite::Error> {
        connection
            .prepare_cached(&format!(
                "SELECT {STREAM_COLUMNS} FROM stream WHERE name = ?1"
            ))?
            .query_row([stream.as_str()], Self::read)
            .optional()
    }

    /// Makes a stream without messages.
    pub(super) fn create(
        transaction: &Transaction<'_>,
        stream: &StreamName,
    ) -> Result<Self, rusqlite::Error> {
        transaction
            .prepare_cached("INSERT INTO stream (name) VALUES (?1)")?
            .execute([stream.as_str()])?;
        Ok(Self {
            stream_id: transaction.last_insert_rowid(),
            head: 0,
            tail: 1,
            max_len: None,
            max_age: None,
            trim_pending: false,
        })
    }

    pub(super) fn read(row: &Row<'_>) -> Result<Self, rusqlite::Error> {
        Ok(Self {
            stream_id: row.get(0)?,
            head: row.get(1)?,
            tail: row.get(2)?,
            max_len: row.get(3)?,
            max_age: row.get(4)?,
            trim_pending: row.get(5)?,
        })
    }

    /// Stores the retention of the stream.
    pub(super) fn keep(
        &mut self,
        transaction: &Transaction<'_>,
        retention: Retention,
    ) -> Result<()> {
        let (max_len, max_age) = retention.bounds();
        let kept = Self {
            max_len,
            max_age,
            trim_pending: retention.trim_pending,
            ..*self
        };
        if *self != kept {
            transaction
                .prepare_cached(
                    "UPDATE stream SET max_len = ?2, max_age = ?3, trim_pending = ?4
                     WHERE stream_id = ?1",
                )?
                .execute(params![
                    kept.stream_id,
                    kept.max_len,
                    kept.max_age,
                    kept.trim_pending
                ])?;
            *self = kept;
        }
        Ok(())
    }
}
