//! The tables, and how a row is keyed.

use crate::StoreError;

/// Whose tables these are, in the file's list of schemas.
pub(in crate::store) const COMPONENT: &str = "notify";

/// What made the tables; a released step never changes.
///
/// Times are in microseconds since 1970. An event keeps two times beside its own, neither of which
/// ever falls along the log: `latest_at`, the greatest timestamp so far, by which a time is found by
/// bisection, and `stored_at`, from which its age counts.
pub(in crate::store) const STEPS: &[&str] = &[
    "
    CREATE TABLE notify_log (
        id INTEGER PRIMARY KEY,
        user TEXT NOT NULL UNIQUE,
        epoch INTEGER NOT NULL,
        first_seq INTEGER NOT NULL DEFAULT 1,
        top_seq INTEGER NOT NULL,
        delivered_seq INTEGER NOT NULL DEFAULT 0,
        unread INTEGER NOT NULL CHECK (unread >= 0),
        read_revision INTEGER NOT NULL DEFAULT 0,
        latest_at INTEGER NOT NULL,
        stored_at INTEGER NOT NULL,
        changed INTEGER NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX notify_log_changed ON notify_log (changed);
    CREATE TABLE notify_event (
        key INTEGER PRIMARY KEY,
        timestamp INTEGER NOT NULL,
        latest_at INTEGER NOT NULL,
        stored_at INTEGER NOT NULL,
        read_at INTEGER,
        type TEXT NOT NULL,
        payload TEXT NOT NULL
    ) STRICT;
    CREATE INDEX notify_event_type ON notify_event (type, key);
    CREATE INDEX notify_event_unread ON notify_event (key) WHERE read_at IS NULL;
",
    "
    DROP INDEX notify_event_type;
",
    // What was read has a row of its own each; later marks reach any number of events.
    "
    CREATE TABLE notify_state (
        key INTEGER PRIMARY KEY,
        read_at INTEGER,
        is_unread INTEGER NOT NULL DEFAULT 0,
        archived_at INTEGER
    ) STRICT;
    INSERT INTO notify_state (key, read_at)
        SELECT key, read_at FROM notify_event WHERE read_at IS NOT NULL;
    CREATE INDEX notify_state_unread ON notify_state (key) WHERE is_unread = 1;
    CREATE INDEX notify_state_archived ON notify_state (key) WHERE archived_at IS NOT NULL;
    CREATE TABLE notify_read_mark (
        log INTEGER NOT NULL,
        up_to INTEGER NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (log, up_to)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE notify_key (
        log INTEGER NOT NULL,
        event_key TEXT NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (log, event_key, seq)
    ) STRICT, WITHOUT ROWID;
    DROP INDEX notify_event_unread;
    ALTER TABLE notify_event DROP COLUMN read_at;
    ALTER TABLE notify_event ADD COLUMN event_key TEXT;
    ALTER TABLE notify_log RENAME COLUMN read_revision TO revision;
    ALTER TABLE notify_log ADD COLUMN unseen INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE notify_log ADD COLUMN seen_seq INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE notify_log ADD COLUMN read_seq INTEGER NOT NULL DEFAULT 0;
    UPDATE notify_log SET unseen = unread;
",
    // An event that is replaced while it is unread says so for as long as it is kept. The index is for the few that were
    // put back to unread in the inbox.
    "
    DROP INDEX notify_state_unread;
    CREATE INDEX notify_state_unread ON notify_state (key)
        WHERE is_unread = 1 AND archived_at IS NULL;
",
];

const SEQ_BITS: u32 = 32;

/// Greatest number of an event in its log.
pub(super) const MAX_SEQ: i64 = (1 << SEQ_BITS) - 1;

/// Greatest number of a log: with it, keys still fill no more than 63 bits.
const MAX_LOG: i64 = (1 << 31) - 1;

/// The row of event `seq` in log `log`.
pub(super) fn key(log: i64, seq: i64) -> Result<i64, StoreError> {
    if (0..=MAX_LOG).contains(&log) && (0..=MAX_SEQ).contains(&seq) {
        Ok(log << SEQ_BITS | seq)
    } else {
        Err(StoreError::NumbersExhausted)
    }
}

/// The number of the event in row `key`, in its log.
pub(super) fn seq_of(key: i64) -> u64 {
    (key & MAX_SEQ).unsigned_abs()
}

/// A caller's number as SQLite has it. None in a file is greater than [`MAX_SEQ`], so a greater one
/// may become that.
pub(super) fn clamp_seq(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(MAX_SEQ).min(MAX_SEQ)
}
