//! Reading messages.

use bytes::Bytes;
use jiff::Timestamp;
use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::tokio_postgres::types::Type;

use super::failure;
use crate::engine::{GroupKey, headers};
use crate::{Error, Headers, Message, MessageId, NewMessage, StreamName};

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
    fn read(row: &Row) -> Result<Self, Error> {
        let column = failure::column;
        Self::new(
            row.try_get(0).map_err(column)?,
            row.try_get(1).map_err(column)?,
            row.try_get(2).map_err(column)?,
            row.try_get(3).map_err(column)?,
        )
    }

    fn new(
        number: i64,
        created_at: i64,
        headers: Option<&[u8]>,
        payload: &[u8],
    ) -> Result<Self, Error> {
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
pub(super) fn inline(row: &Row, first: usize, lo: i64) -> Result<Option<Vec<Content>>, Error> {
    let column = failure::column;
    let numbers: Option<Vec<i64>> = row.try_get(first).map_err(column)?;
    let times: Option<Vec<i64>> = row.try_get(first + 1).map_err(column)?;
    let headers: Option<Vec<Option<&[u8]>>> = row.try_get(first + 2).map_err(column)?;
    let payloads: Option<Vec<&[u8]>> = row.try_get(first + 3).map_err(column)?;
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
) -> Result<Vec<Content>, Error> {
    if lo > hi {
        return Ok(Vec::new());
    }
    let parameters = [
        (&stream_id as _, Type::INT8),
        (&lo as _, Type::INT8),
        (&hi as _, Type::INT8),
    ];
    let rows = connections.query(RANGE, &parameters).await?;
    rows.iter().map(Content::read).collect()
}

/// Reads those of some messages of a group that are kept, in order, with the error of the last attempt.
pub(super) async fn redelivered(
    connections: &Connections,
    group: &GroupKey,
    stream_id: i64,
    numbers: &[i64],
) -> Result<Vec<(Content, Option<String>)>, Error> {
    if numbers.is_empty() {
        return Ok(Vec::new());
    }
    let parameters = [
        (&group.stream.as_str() as _, Type::TEXT),
        (&group.group.as_str() as _, Type::TEXT),
        (&stream_id as _, Type::INT8),
        (&numbers as _, Type::INT8_ARRAY),
    ];
    let rows = connections.query(REDELIVERED, &parameters).await?;
    rows.iter()
        .map(|row| {
            let error: Option<Vec<u8>> = row.try_get(4).map_err(failure::column)?;
            let error = error.map(String::from_utf8).transpose();
            Ok((Content::read(row)?, error.map_err(Error::backend)?))
        })
        .collect()
}

/// The headers of those of some messages of a stream that have not been trimmed.
pub(super) async fn headers(
    connections: &Connections,
    stream: &StreamName,
    numbers: &[i64],
) -> Result<Vec<(i64, Headers)>, Error> {
    let parameters = [
        (&stream.as_str() as _, Type::TEXT),
        (&numbers as _, Type::INT8_ARRAY),
    ];
    let rows = connections.query(HEADERS, &parameters).await?;
    rows.iter()
        .map(|row| {
            let headers = row.try_get(1).map_err(failure::column)?;
            Ok((
                row.try_get(0).map_err(failure::column)?,
                headers::decode(headers)?,
            ))
        })
        .collect()
}

/// Reads messages of a stream in order, from the first one after a number on.
pub(super) async fn page(
    connections: &Connections,
    stream: &StreamName,
    after: Option<MessageId>,
    max: usize,
) -> Result<Vec<Message>, Error> {
    let after = after.map_or(0, MessageId::as_u64);
    let max = i64::try_from(max).unwrap_or(i64::MAX);
    let Ok(mut after) = i64::try_from(after) else {
        return Ok(Vec::new());
    };
    loop {
        let parameters = [
            (&stream.as_str() as _, Type::TEXT),
            (&after as _, Type::INT8),
            (&max as _, Type::INT8),
            (&MAX_BYTES as _, Type::INT8),
        ];
        let row = connections.row(PAGE_END, &parameters).await?;
        let stream_id: Option<i64> = row.try_get(0).map_err(failure::column)?;
        let hi: Option<i64> = row.try_get(1).map_err(failure::column)?;
        let (Some(stream_id), Some(hi)) = (stream_id, hi) else {
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
