//! Figures of streams and groups.

use tidings_postgres::{Connections, params};

use super::rows::{get, number, rows};
use crate::engine::time;
use crate::{GroupFigures, GroupName, Result, StreamName, StreamStats};

/// Most messages of one stream in the outbox that are counted.
const MOST_IN_OUTBOX: i64 = 10_000;

/// One statement, so that a message is either in the outbox or in the stream.
const STATS: &str = "
    SELECT tail, head, name, cursor, first_needed, lag, pending, dead_lettered, lost_to_trim,
        outbox.messages, outbox.age
    FROM tidings_stream_stats($1), (
        SELECT count(*) AS messages, tidings_stream_now() - min(created_at) AS age
        FROM (SELECT created_at FROM tidings_stream_outbox WHERE stream = $1
            ORDER BY stream, outbox_id LIMIT $2) AS oldest
    ) AS outbox";

const LIST: &str = "SELECT tidings_stream_list($1)";

/// Reads the figures of a stream.
pub(super) async fn read(connections: &Connections, stream: &StreamName) -> Result<StreamStats> {
    let rows = rows(connections, STATS, params![stream.as_str(), MOST_IN_OUTBOX]).await?;
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
    let mut stats = StreamStats::new(number(first, 0)?, number(first, 1)?, groups);
    let in_outbox = number(first, 9)?;
    let age = get::<Option<i64>>(first, 10)?.map(time::duration);
    for group in &mut stats.groups {
        group.lag += in_outbox;
        // What is in the stream may be the older one, or what a transaction left that was open for long.
        group.lag_time = group.lag_time.max(age);
    }
    Ok(stats)
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
