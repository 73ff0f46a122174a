//! Figures of streams and groups.

use tidings_postgres::{Connections, params};

use super::rows::{get, number, rows};
use crate::engine::time;
use crate::{GroupFigures, GroupName, Result, StreamName, StreamStats};

const STATS: &str = "
    SELECT tail, head, name, cursor, first_needed, lag, pending, dead_lettered, lost_to_trim
    FROM tidings_stream_stats($1)";

const LIST: &str = "SELECT tidings_stream_list($1)";

/// Reads the figures of a stream.
pub(super) async fn read(connections: &Connections, stream: &StreamName) -> Result<StreamStats> {
    let rows = rows(connections, STATS, params![stream.as_str()]).await?;
    let Some(first) = rows.first() else {
        return Ok(StreamStats::default());
    };
    let mut groups = Vec::new();
    for row in &rows {
        let name: Option<&str> = get(row, 2)?;
        // A stream without groups has one row.
        let Some(name) = name else { continue };
        groups.push(GroupFigures {
            name: GroupName::new(name)?,
            cursor: number(row, 3)?,
            first_needed: number(row, 4)?,
            lag: get::<Option<i64>>(row, 5)?.map(time::duration),
            pending: number(row, 6)?,
            dead_lettered: number(row, 7)?,
            lost_to_trim: number(row, 8)?,
        });
    }
    Ok(StreamStats::new(
        number(first, 0)?,
        number(first, 1)?,
        groups,
    ))
}

/// The streams whose names begin with a prefix, in order.
pub(super) async fn list(connections: &Connections, prefix: &str) -> Result<Vec<StreamName>> {
    // No name has one, and PostgreSQL has no text with one.
    if prefix.contains('\0') {
        return Ok(Vec::new());
    }
    let rows = rows(connections, LIST, params![prefix]).await?;
    let names = rows.iter().map(|row| get::<&str>(row, 0)?.parse());
    names.collect()
}
