//! Figures of streams and groups.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::append::{STREAM_COLUMNS, StreamRow};
use super::lease::Lease;
use crate::{Error, GroupName, GroupStats, MessageId, StreamName, StreamStats};

/// Reads the figures of a stream, all of the same moment.
pub(super) fn read(connection: &Connection, stream: &StreamName) -> Result<StreamStats, Error> {
    let snapshot = connection.unchecked_transaction()?;
    let row = snapshot
        .prepare_cached(&format!(
            "SELECT {STREAM_COLUMNS} FROM stream WHERE name = ?1"
        ))?
        .query_row([stream.as_str()], StreamRow::read)
        .optional()?;
    let Some(row) = row else {
        return Ok(StreamStats::default());
    };
    let groups = groups(&snapshot, &row)?;
    let holds_any = row.tail <= row.head;
    let id = |number: i64| MessageId::from_u64(number.cast_unsigned());
    Ok(StreamStats {
        oldest: holds_any.then(|| id(row.tail)),
        newest: holds_any.then(|| id(row.head)),
        messages: (row.head + 1 - row.tail).cast_unsigned(),
        groups,
    })
}

fn groups(connection: &Connection, stream: &StreamRow) -> Result<Vec<GroupStats>, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT group_id, name, cursor, dead_lettered, lost_to_trim,
                (SELECT count(*) FROM stream_retry AS r WHERE r.group_id = g.group_id)
         FROM stream_group AS g WHERE stream_id = ?1 ORDER BY name",
    )?;
    let mut rows = statement.query([stream.stream_id])?;
    let mut groups = Vec::new();
    while let Some(row) = rows.next()? {
        let mut stats = group(stream, row)?;
        stats.pending += in_leases(connection, row.get(0)?)?;
        groups.push(stats);
    }
    Ok(groups)
}

fn group(stream: &StreamRow, row: &Row<'_>) -> Result<GroupStats, Error> {
    let name: String = row.get(1)?;
    let cursor: i64 = row.get(2)?;
    let unsigned = |column| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.cast_unsigned());
    Ok(GroupStats {
        lag: (stream.head - cursor.max(stream.tail - 1)).cast_unsigned(),
        pending: unsigned(5)?,
        dead_lettered: unsigned(3)?,
        lost_to_trim: unsigned(4)?,
        ..GroupStats::new(GroupName::new(&name)?)
    })
}

fn in_leases(connection: &Connection, group_id: i64) -> Result<u64, Error> {
    let mut statement = connection.prepare_cached(
        "SELECT group_id, claim, lo, hi, settled FROM stream_lease WHERE group_id = ?1",
    )?;
    let leases = statement.query_map(params![group_id], Lease::read)?;
    let mut open = 0;
    for lease in leases {
        open += lease?.open_numbers().count() as u64;
    }
    Ok(open)
}
