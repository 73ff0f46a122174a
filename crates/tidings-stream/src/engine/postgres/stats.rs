//! Figures of streams and groups.

use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::tokio_postgres::types::Type;

use super::connections::Connections;
use super::failure;
use crate::{Error, GroupName, GroupStats, MessageId, StreamName, StreamStats};

/// A stream with each of its groups, or with none: one statement, so all of the same moment.
const STATS: &str = "
    SELECT s.tail, coalesce(newest.number, s.tail - 1), g.name, place.hi,
        least(place.hi + 1, again.first, leased.first), again.count + leased.count,
        g.dead_lettered, g.lost_to_trim
    FROM tidings_stream s
    LEFT JOIN LATERAL (
        SELECT number FROM tidings_stream_message m
        WHERE m.stream_id = s.stream_id AND m.number >= s.tail
        ORDER BY number DESC LIMIT 1) AS newest ON true
    LEFT JOIN tidings_stream_group g ON g.stream_id = s.stream_id
    LEFT JOIN LATERAL (
        SELECT max(hi) AS hi FROM tidings_stream_lease l WHERE l.group_id = g.group_id
        ) AS place ON true
    LEFT JOIN LATERAL (
        SELECT count(*) AS count, min(number) AS first FROM tidings_stream_retry r
        WHERE r.group_id = g.group_id) AS again ON true
    LEFT JOIN LATERAL (
        SELECT coalesce(sum(bit_count(~settled)), 0)::bigint AS count,
            min(lo + position(B'0' IN settled) - 1) AS first
        FROM tidings_stream_lease l WHERE l.group_id = g.group_id AND deadline IS NOT NULL
        ) AS leased ON true
    WHERE s.name = $1 ORDER BY g.name";

const LIST: &str = "
    SELECT name FROM tidings_stream
    WHERE name >= $1 AND name >= ' ' AND starts_with(name, $1) ORDER BY name";

/// Reads the figures of a stream.
pub(super) async fn read(
    connections: &Connections,
    stream: &StreamName,
) -> Result<StreamStats, Error> {
    let parameters = [(&stream.as_str() as _, Type::TEXT)];
    let rows = connections.query(STATS, &parameters).await?;
    let Some(row) = rows.first() else {
        return Ok(StreamStats::default());
    };
    let (tail, head) = (number(row, 0)?, number(row, 1)?);
    let holds_any = tail <= head;
    let mut groups = Vec::new();
    for row in &rows {
        let name: Option<String> = row.try_get(2).map_err(failure::column)?;
        if let Some(name) = name {
            groups.push(group(row, GroupName::new(&name)?, tail, head)?);
        }
    }
    Ok(StreamStats {
        oldest: holds_any.then(|| id(tail)),
        newest: holds_any.then(|| id(head)),
        messages: (head + 1 - tail).cast_unsigned(),
        groups,
    })
}

/// The streams whose names begin with a prefix, in order.
pub(super) async fn list(
    connections: &Connections,
    prefix: &str,
) -> Result<Vec<StreamName>, Error> {
    // No name has one, and PostgreSQL has no text with one.
    if prefix.contains('\0') {
        return Ok(Vec::new());
    }
    let rows = connections
        .query(LIST, &[(&prefix as _, Type::TEXT)])
        .await?;
    rows.iter()
        .map(|row| {
            let name: &str = row.try_get(0).map_err(failure::column)?;
            name.parse()
        })
        .collect()
}

fn group(row: &Row, name: GroupName, tail: i64, head: i64) -> Result<GroupStats, Error> {
    let cursor = number(row, 3)?;
    let first_needed = number(row, 4)?.max(tail);
    Ok(GroupStats {
        position: id(cursor),
        oldest_unfinished: (first_needed <= head).then(|| id(first_needed)),
        lag: (head - cursor.max(tail - 1)).cast_unsigned(),
        pending: number(row, 5)?.cast_unsigned(),
        dead_lettered: number(row, 6)?.cast_unsigned(),
        lost_to_trim: number(row, 7)?.cast_unsigned(),
        ..GroupStats::new(name)
    })
}

fn number(row: &Row, column: usize) -> Result<i64, Error> {
    row.try_get(column).map_err(failure::column)
}

fn id(number: i64) -> MessageId {
    MessageId::from_u64(number.cast_unsigned())
}
