//! Moving the logs of a SQLite file to a PostgreSQL database. Epochs and numbers stay, and cursors with
//! them.

use tidings_import::{Part, Sequence, Table};

use super::sqlite::schema::{COMPONENT, STEPS};

/// The tables of the logs and of the inbox.
///
/// A log gets the timeline of its new server, so that the next event does not begin another epoch. Each log
/// counts as changed by the import.
pub const PART: Part = Part {
    component: COMPONENT,
    version: STEPS.len(),
    data: &["tidings_notify_log"],
    lease: None,
    tables: &[
        Table {
            name: "tidings_notify_log",
            columns: "id, user_id, epoch, line, first_seq, top_seq, unread, unseen, seen_seq, read_seq, \
                      revision, latest_at, stored_at",
            select: "id, user, epoch, ?1, first_seq, top_seq, unread, unseen, seen_seq, read_seq, \
                     revision, latest_at, stored_at",
            from: "notify_log",
            with: Some("SELECT tidings_notify_line()::text"),
        },
        Table {
            name: "tidings_notify_delivered",
            columns: "log, epoch, seq",
            select: "id, epoch, delivered_seq",
            from: "notify_log WHERE delivered_seq > 0",
            with: None,
        },
        Table {
            name: "tidings_notify_event",
            columns: "log, seq, timestamp, latest_at, stored_at, type, event_key, payload",
            select: "key >> 32, key & 0xffffffff, timestamp, latest_at, stored_at, type, event_key, payload",
            from: "notify_event",
            with: None,
        },
        Table {
            name: "tidings_notify_state",
            columns: "log, seq, read_at, is_unread, archived_at",
            select: "key >> 32, key & 0xffffffff, read_at, is_unread, archived_at",
            from: "notify_state",
            with: None,
        },
        Table {
            name: "tidings_notify_archived",
            columns: "log, first_seq, last_seq",
            select: "key >> 32, key & 0xffffffff, last & 0xffffffff",
            from: "notify_archived",
            with: None,
        },
        Table {
            name: "tidings_notify_read_mark",
            columns: "log, up_to, at",
            select: "log, up_to, at",
            from: "notify_read_mark",
            with: None,
        },
        Table {
            name: "tidings_notify_key",
            columns: "log, event_key, seq",
            select: "log, event_key, seq",
            from: "notify_key",
            with: None,
        },
    ],
    sequences: &[Sequence {
        table: "tidings_notify_log",
        column: "id",
        last: "SELECT max(id) FROM notify_log",
    }],
};
