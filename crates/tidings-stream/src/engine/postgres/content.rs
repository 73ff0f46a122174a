//! Reading messages.

use bytes::Bytes;
use jiff::Timestamp;
use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::{Connections, params};

use super::rows::{get, row, rows, text};
use crate::engine::{self, GroupKey, headers};
use crate::{Error, Headers, Message, MessageId, NewMessage, Result, StreamName};

/// Bytes after which a page, or a claim, takes no further message.
pub(super) const MAX_BYTES: i64 = 4 << 20;

const RANGE: &str =
    "SELECT number, created_at, headers, payload FROM tidings_stream_range($1, $2, $3)";

const REDELIVERED: &str = "
    SELECT number, created_at, headers, payload, last_error
    FROM tidings_stream_redelivered($1, $2, $3, $4)";

const PAGE_END: &str = "SELECT o_stream_id, o_hi FROM tidings_stream_page_end($1, $2, $3, $4)";

const HEADERS: &str = "SELECT number, headers FROM tidings_stream_headers($1, $2)";

/// What the store has of a message.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) number: i64,
    message: NewMessage,
    created_at: Timestamp,
}

impl Content {
    fn read(row: &Row) -> Result<Self> {
        Self::new(get(row, 0)?, get(row, 1)?, get(row, 2)?, get(row, 3)?)
    }

    fn new(number: i64, created_at: i64, headers: Option<&[u8]>, payload: &[u8]) -> Result<Self> {
        let payload = Bytes::copy_from_slice(payload);
        Ok(Self {
            number,
            message: NewMessage::new(payload).with_headers(headers::decode(headers)?),
            created_at: Timestamp::from_millisecond(created_at).map_err(Error::backend)?,
        })
    }

    /// The message as it is handed out.
    pub(super) fn into_message(self, stream: StreamName, attempt: u32) -> Message {
        let id = MessageId::from_u64(self.number.cast_unsigned());
        Message::new(id, stream, self.message, self.created_at, attempt)
    }
}

/// The messages that a row has in columns from one on: numbers, times, headers, payloads. Without numbers
/// they are those from `lo` on. `None` if it has none.
pub(super) fn inline(row: &Row, first: usize, lo: i64) -> Result<Option<Vec<Content>>> {
    let numbers: Option<Vec<i64>> = get(row, first)?;
    let times: Option<Vec<i64>> = get(row, first + 1)?;
    let headers: Option<Vec<Option<&[u8]>>> = get(row, first + 2)?;
    let payloads: Option<Vec<&[u8]>> = get(row, first + 3)?;
    let (Some(times), Some(headers), Some(payloads)) = (times, headers, payloads) else {
        return Ok(None);
    };
    let numbers = numbers.unwrap_or_else(|| (lo..).take(times.len()).collect());
    numbers
        .into_iter()
        .zip(times)
        .zip(headers.into_iter().zip(payloads))
        .map(|((number, time), (headers, payload))| Content::new(number, time, headers, payload))
        .collect::<Result<_, _>>()
        .map(Some)
}

/// Reads messages from one number to another, in order.
pub(super) async fn range(
    connections: &Connections,
    stream_id: i64,
    lo: i64,
    hi: i64,
) -> Result<Vec<Content>> {
    if lo > hi {
        return Ok(Vec::new());
    }
    let rows = rows(connections, RANGE, params![stream_id, lo, hi]).await?;
    rows.iter().map(Content::read).collect()
}

/// Reads those of some messages of a group that are kept, in order, with the error of the last attempt.
pub(super) async fn redelivered(
    connections: &Connections,
    group: &GroupKey,
    stream_id: i64,
    numbers: &[i64],
) -> Result<Vec<(Content, Option<String>)>> {
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let (stream, group) = (group.stream.as_str(), group.group.as_str());
    let parameters = params![stream, group, stream_id, numbers];
    let rows = rows(connections, REDELIVERED, parameters).await?;
    let contents = rows
        .iter()
        .map(|row| Ok((Content::read(row)?, text(row, 4)?)));
    contents.collect()
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
        .map(|row| Ok((get(row, 0)?, headers::decode(get(row, 1)?)?)));
    headers.collect()
}

/// Reads messages of a stream in order, from the first one after a number on.
pub(super) async fn page(
    connections: &Connections,
    stream: &StreamName,
    after: Option<MessageId>,
    max: usize,
) -> Result<Vec<Message>> {
    let (mut after, max) = engine::page(after, max);
    loop {
        let parameters = params![stream.as_str(), after, max, MAX_BYTES];
        let Some(row) = row(connections, PAGE_END, parameters).await? else {
            return Ok(Vec::new());
        };
        let (Some(stream_id), Some(hi)) = (get(&row, 0)?, get(&row, 1)?) else {
            return Ok(Vec::new());
        };
        let contents = range(connections, stream_id, after.saturating_add(1), hi).await?;
        // All messages of a page may have been deleted.
        if !contents.is_empty() {
            let messages = contents.into_iter();
            let messages = messages.map(|content| content.into_message(stream.clone(), 0));
            return Ok(messages.collect());
        }
        after = hi;
    }
}
