//! The tables, and how a row is keyed.

use crate::StoreError;

/// Whose tables these are, in the file's list of schemas.
pub(in crate::store) const COMPONENT: &str = "notify";

/// The steps of the migration. One that was released is never changed; a change is another step.
///
/// Times are in microseconds since 1970. An event keeps two times beside its own, neither of which
/// ever falls along the log: `latest_at`, the greatest timestamp so far, by which a time is found by
/// bisection, and `stored_at`, from which its age counts.
///
/// An event that is replaced while it is unread says so for as long as it is kept: the index of what is unread is for the
/// few that were put back to unread in the inbox.
pub(in crate::store) const STEPS: &[&str] = &["
    CREATE TABLE notify_log (
        id INTEGER PRIMARY KEY,
        user TEXT NOT NULL UNIQUE,
        epoch INTEGER NOT NULL,
        first_seq INTEGER NOT NULL DEFAULT 1,
        top_seq INTEGER NOT NULL,
        delivered_seq INTEGER NOT NULL DEFAULT 0,
        unread INTEGER NOT NULL CHECK (unread >= 0),
        unseen INTEGER NOT NULL DEFAULT 0,
        seen_seq INTEGER NOT NULL DEFAULT 0,
        read_seq INTEGER NOT NULL DEFAULT 0,
        revision INTEGER NOT NULL DEFAULT 0,
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
        type TEXT NOT NULL,
        payload TEXT NOT NULL,
        event_key TEXT
    ) STRICT;
    CREATE TABLE notify_state (
        key INTEGER PRIMARY KEY,
        read_at INTEGER,
        is_unread INTEGER NOT NULL DEFAULT 0,
        archived_at INTEGER
    ) STRICT;
    CREATE INDEX notify_state_unread ON notify_state (key)
        WHERE is_unread = 1 AND archived_at IS NULL;
    CREATE INDEX notify_state_archived ON notify_state (key) WHERE archived_at IS NOT NULL;
    CREATE TABLE notify_archived (
        key INTEGER PRIMARY KEY,
        last INTEGER NOT NULL
    ) STRICT;
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
"];

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
