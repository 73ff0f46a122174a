//! Figures of streams and groups.

use rusqlite::{Connection, Row};

use super::content;
use super::lease::Lease;
use super::schema::StreamRow;
use crate::{GroupFigures, GroupName, Result, StreamName, StreamStats};

/// Reads the figures of a stream, all of the same moment.
pub(super) fn read(connection: &Connection, stream: &StreamName) -> Result<StreamStats> {
    let Some(row) = StreamRow::find(connection, stream)? else {
        return Ok(StreamStats::default());
    };
    let groups = groups(connection, &row)?;
    let (tail, head) = (row.tail.cast_unsigned(), row.head.cast_unsigned());
    Ok(StreamStats::new(tail, head, groups))
}

/// The streams whose names begin with a prefix, in order.
pub(super) fn list(connection: &Connection, prefix: &str) -> Result<Vec<StreamName>> {
    let mut statement = connection
        .prepare_cached("SELECT name FROM stream WHERE name >= ?1 AND name >= ' ' ORDER BY name")?;
    let mut rows = statement.query([prefix])?;
    let mut names = Vec::new();
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        if !name.starts_with(prefix) {
            break;
        }
        names.push(name.parse()?);
    }
    Ok(names)
}

fn groups(connection: &Connection, stream: &StreamRow) -> Result<Vec<GroupFigures>> {
    let mut statement = connection.prepare_cached(
        "SELECT group_id, name, cursor, dead_lettered, lost_to_trim,
                (SELECT count(*) FROM stream_retry AS r WHERE r.group_id = g.group_id),
                (SELECT min(number) FROM stream_retry AS r WHERE r.group_id = g.group_id)
         FROM stream_group AS g WHERE stream_id = ?1 ORDER BY name",
    )?;
    let mut rows = statement.query([stream.stream_id])?;
    let mut groups = Vec::new();
    while let Some(row) = rows.next()? {
        groups.push(group(connection, stream, row)?);
    }
    Ok(groups)
}

fn group(connection: &Connection, stream: &StreamRow, row: &Row<'_>) -> Result<GroupFigures> {
    let name: String = row.get(1)?;
    let (in_leases, first_in_lease) = in_leases(connection, row.get(0)?)?;
    let first_retry: Option<i64> = row.get(6)?;
    let cursor: i64 = row.get(2)?;
    let unsigned = |column| Ok::<_, rusqlite::Error>(row.get::<_, i64>(column)?.cast_unsigned());
    let first_needed = [first_retry, first_in_lease, Some(cursor + 1)];
    let first_needed = first_needed.into_iter().flatten().min();
    let first_needed = first_needed.map_or(stream.tail, |number| number.max(stream.tail));
    Ok(GroupFigures {
        name: GroupName::new(&name)?,
        cursor: cursor.cast_unsigned(),
        first_needed: first_needed.cast_unsigned(),
        lag: content::age(connection, stream.stream_id, first_needed)?,
        pending: unsigned(5)? + in_leases,
        dead_lettered: unsigned(3)?,
        lost_to_trim: unsigned(4)?,
    })
}

/// How many messages a group has claimed for the first time and not settled, and the first of them.
fn in_leases(connection: &Connection, group_id: i64) -> Result<(u64, Option<i64>)> {
    let (mut open, mut first) = (0, None);
    for lease in Lease::select(connection, "group_id = ?1", [group_id])? {
        open += lease.messages.open_count() as u64;
        let lowest = lease.messages.open().next().map(u64::cast_signed);
        first = first.into_iter().chain(lowest).min();
    }
    Ok((open, first))
}
