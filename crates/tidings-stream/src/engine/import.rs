//! Moving the streams of a SQLite file to a PostgreSQL database.

use tidings_import::{Part, Sequence, Table};

use super::sqlite::schema::{COMPONENT, STEPS};

/// What is of a stream that was not deleted: the name of a deleted one begins with a control character.
macro_rules! shown {
    ($stream_id:literal) => {
        concat!(
            $stream_id,
            " IN (SELECT stream_id FROM stream WHERE name >= char(32))"
        )
    };
}

const SHOWN_STREAMS: &str = concat!("stream WHERE ", shown!("stream_id"));

const SHOWN_GROUPS: &str = concat!("stream_group WHERE ", shown!("stream_id"));

/// The tables of streams and groups. Messages keep their ids, and groups their places.
///
/// A [`SqliteEngine`](super::sqlite::SqliteEngine) must have been opened on the file, alone: it ends what an earlier run had
/// claimed, so that what a group has open is what waits to be claimed again. Members are left out:
/// there are none.
pub const PART: Part = Part {
    component: COMPONENT,
    version: STEPS.len(),
    data: &["tidings_stream_message", "tidings_stream_outbox"],
    lease: None,
    tables: &[
        Table {
            name: "tidings_stream",
            columns: "stream_id, name, tail, max_len, max_age, trim_pending",
            select: "stream_id, name, tail, max_len, max_age, trim_pending",
            from: SHOWN_STREAMS,
            with: None,
        },
        Table {
            name: "tidings_stream_message",
            columns: "stream_id, number, created_at, bytes, headers, payload",
            // Only differences of bytes within a stream matter, so they are counted over all streams.
            select: "key >> 40, key & 0xffffffffff, created_at,
                sum(length(payload) + coalesce(octet_length(headers), 0))
                    OVER (ORDER BY key ROWS UNBOUNDED PRECEDING),
                CAST(headers AS BLOB), payload",
            from: concat!("stream_message WHERE ", shown!("key >> 40")),
            with: None,
        },
        // A newest message that was deleted leaves a row, which says how far its stream has come: see
        // `tidings_stream_delete_message`.
        Table {
            name: "tidings_stream_message",
            columns: "stream_id, number, created_at, bytes, headers, payload",
            select: "stream_id, head,
                coalesce((SELECT created_at FROM stream_message
                    WHERE key BETWEEN stream_id << 40 AND stream_id << 40 | head
                    ORDER BY key DESC LIMIT 1), 0),
                (SELECT coalesce(sum(length(payload) + coalesce(octet_length(headers), 0)), 0)
                    FROM stream_message WHERE key < stream.stream_id << 40 | stream.head
                    AND key >> 40 IN (SELECT stream_id FROM stream WHERE name >= char(32))),
                x'', x''",
            from: "stream WHERE name >= char(32) AND tail <= head
                AND NOT EXISTS (SELECT 1 FROM stream_message WHERE key = stream_id << 40 | head)",
            with: None,
        },
        Table {
            name: "tidings_stream_group",
            columns: "group_id, stream_id, name, dead_lettered, lost_to_trim",
            select: "group_id, stream_id, name, dead_lettered, lost_to_trim",
            from: SHOWN_GROUPS,
            with: None,
        },
        // The place of a group, with nothing claimed: see `tidings_stream_place`.
        Table {
            name: "tidings_stream_lease",
            columns: "group_id, hi, lo, claim, consumer, since, settled, first_open",
            select: "group_id, cursor, cursor + 1, 0, '', 0, '', cursor",
            from: SHOWN_GROUPS,
            with: None,
        },
        Table {
            name: "tidings_stream_retry",
            columns: "group_id, number, due, since, attempts, last_error, ordering_key",
            select: "group_id, number, due, since, attempts, CAST(last_error AS BLOB),
                CAST(ordering_key AS BLOB)",
            from: concat!(
                "stream_retry WHERE group_id IN (SELECT group_id FROM stream_group WHERE ",
                shown!("stream_id"),
                ")"
            ),
            with: None,
        },
        Table {
            name: "tidings_stream_retry_floor",
            columns: "group_id, waiting, lowest",
            select: "group_id, 0, 0",
            from: SHOWN_GROUPS,
            with: None,
        },
        Table {
            name: "tidings_stream_publish_key",
            columns: "stream_id, key, number, expires",
            select: "stream_id, key, number, expires",
            from: concat!("stream_publish_key WHERE ", shown!("stream_id")),
            with: None,
        },
    ],
    sequences: &[
        Sequence {
            table: "tidings_stream",
            column: "stream_id",
            last: "SELECT max(stream_id) FROM stream",
        },
        Sequence {
            table: "tidings_stream_group",
            column: "group_id",
            last: "SELECT max(group_id) FROM stream_group",
        },
    ],
};
