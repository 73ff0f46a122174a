//! Figures of streams and groups.

use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::tokio_postgres::types::Type;

use super::failure;
use crate::engine::time;
use crate::stats::Place;
use crate::{Error, GroupName, GroupStats, StreamName, StreamStats};

const STATS: &str = "
    SELECT tail, head, name, cursor, first_needed, pending, dead_lettered, lost_to_trim, lag
    FROM tidings_stream_stats($1)";

const LIST: &str = "SELECT tidings_stream_list($1)";

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
    let mut groups = Vec::new();
    for row in &rows {
        let name: Option<String> = row.try_get(2).map_err(failure::column)?;
        if let Some(name) = name {
            groups.push(group(row, GroupName::new(&name)?, tail, head)?);
        }
    }
    Ok(StreamStats::new(tail, head, groups))
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

fn group(row: &Row, name: GroupName, tail: u64, head: u64) -> Result<GroupStats, Error> {
    let lag: Option<i64> = row.try_get(8).map_err(failure::column)?;
    let place = Place {
        tail,
        head,
        cursor: number(row, 3)?,
        first_needed: number(row, 4)?,
        lag: lag.map(time::duration),
    };
    Ok(GroupStats {
        pending: number(row, 5)?,
        dead_lettered: number(row, 6)?,
        lost_to_trim: number(row, 7)?,
        ..GroupStats::at(name, place)
    })
}

fn number(row: &Row, column: usize) -> Result<u64, Error> {
    let number: i64 = row.try_get(column).map_err(failure::column)?;
    Ok(number.cast_unsigned())
}
