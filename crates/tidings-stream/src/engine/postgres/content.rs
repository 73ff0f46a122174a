//! Reading messages.

use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::{Connections, params};

use super::rows::{get, number, rows, text};
use crate::engine::lost_claims::Read;
use crate::engine::{self, GroupKey, stored};
use crate::{Headers, Message, MessageId, Result, StreamName};

/// Bytes after which a page, or a claim, takes no further message.
pub(super) const MAX_BYTES: i64 = 4 << 20;

const CLAIMED: &str = "
    SELECT number, created_at, headers, payload, last_error
    FROM tidings_stream_claimed($1, $2, $3, $4, $5, $6)";

const PAGE: &str =
    "SELECT number, created_at, headers, payload FROM tidings_stream_page($1, $2, $3, $4)";

const HEADERS: &str = "SELECT number, headers FROM tidings_stream_headers($1, $2)";

fn read(row: &Row, stream: &StreamName) -> Result<Message> {
    let payload: Vec<u8> = get(row, 3)?;
    stored::message(stream, number(row, 0)?, get(row, 1)?, get(row, 2)?, payload)
}

/// The messages that a row has in columns from one on: numbers, times, headers, payloads. Without numbers
/// they are those from `lo` on. `None` if it has none.
pub(super) fn inline(
    row: &Row,
    first: usize,
    stream: &StreamName,
    lo: i64,
) -> Result<Option<Vec<Message>>> {
    let numbers: Option<Vec<i64>> = get(row, first)?;
    let times: Option<Vec<i64>> = get(row, first + 1)?;
    let headers: Option<Vec<Option<&[u8]>>> = get(row, first + 2)?;
    let payloads: Option<Vec<Vec<u8>>> = get(row, first + 3)?;
    let (Some(times), Some(headers), Some(payloads)) = (times, headers, payloads) else {
        return Ok(None);
    };
    let numbers = numbers.unwrap_or_else(|| (lo..).take(times.len()).collect());
    let parts = numbers.into_iter().zip(times);
    let parts = parts.zip(headers.into_iter().zip(payloads));
    let messages = parts.map(|((number, time), (headers, payload))| {
        stored::message(stream, number.cast_unsigned(), time, headers, payload)
    });
    messages.collect::<Result<_>>().map(Some)
}

/// Reads those of the claimed messages of a group that are kept, with the error of the last attempt: some that
/// come again, in this order, and new ones from one number to another.
pub(super) async fn claimed(
    connections: &Connections,
    group: &GroupKey,
    stream_id: i64,
    again: &[i64],
    (lo, hi): (i64, i64),
) -> Result<Read> {
    if again.is_empty() && lo > hi {
        return Ok(Vec::new());
    }
    let GroupKey { stream, group } = group;
    let parameters = params![stream.as_str(), group.as_str(), stream_id, again, lo, hi];
    let rows = rows(connections, CLAIMED, parameters).await?;
    let messages = rows
        .iter()
        .map(|row| Ok((read(row, stream)?, text(row, 4)?)));
    messages.collect()
}

/// The headers of those of some messages of a stream that have not been trimmed.
pub(super) async fn headers(
    connections: &Connections,
    stream: &StreamName,
    numbers: &[i64],
) -> Result<Vec<(i64, Headers)>> {
    let rows = rows(connections, HEADERS, params![stream.as_str(), numbers]).await?;
    let headers = rows
        .iter()
        .map(|row| Ok((get(row, 0)?, stored::decode(get(row, 1)?)?)));
    headers.collect()
}

/// Reads messages of a stream in order, from the first one after a number on.
pub(super) async fn page(
    connections: &Connections,
    stream: &StreamName,
    after: Option<MessageId>,
    max: usize,
) -> Result<Vec<Message>> {
    let (after, max) = engine::page(after, max);
    let parameters = params![stream.as_str(), after, max, MAX_BYTES];
    let rows = rows(connections, PAGE, parameters).await?;
    rows.iter().map(|row| read(row, stream)).collect()
}
