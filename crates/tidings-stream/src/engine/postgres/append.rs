//! Appending to a stream.

use std::sync::Arc;

use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::{Connections, Error as DatabaseError, params};

use super::announce::Announcer;
use super::failure;
use super::rows::{get, number, row, value};
use crate::engine::group_commit::{Append, AppendError};
use crate::engine::{Wakes, numbering, stored, time};
use crate::{Error, MessageId, NewMessage, Result, Retention, StreamName};

const APPEND: &str = "
    SELECT first, head, repeats FROM tidings_stream_append($1, $2, $3, $4, $5, $6, $7, $8, $9)";

const KNOWN: &str = "SELECT tidings_stream_known($1, $2)";

/// Appends batches, and wakes the consumers that wait for them.
#[derive(Debug)]
pub(super) struct Appender {
    connections: Arc<Connections>,
    wakes: Wakes,
    announcer: Announcer,
}

impl Appender {
    pub(super) fn new(connections: Arc<Connections>, wakes: Wakes, announcer: Announcer) -> Self {
        Self {
            connections,
            wakes,
            announcer,
        }
    }

    /// What an append returned, as the ids of its messages.
    async fn ids(
        &self,
        stream: &StreamName,
        row: &Row,
        count: usize,
        columns: &Columns<'_>,
    ) -> Result<Vec<MessageId>> {
        let (first, head) = (number(row, 0)?, number(row, 1)?);
        let places = match (get::<Option<Vec<i64>>>(row, 2)?, &columns.keys) {
            (None, Some(keys)) => self.places(stream, keys, head).await?,
            (repeats, _) => {
                let repeats = repeats.unwrap_or_default();
                let pairs = repeats.chunks_exact(2);
                let pairs = pairs.map(|pair| (pair[0].cast_unsigned(), pair[1].cast_unsigned()));
                pairs.collect()
            }
        };
        Ok(numbering::ids(first, count, places))
    }

    /// The place of each message with a publish key, and the number of the first one under the key, which is
    /// `head` at most.
    async fn places(
        &self,
        stream: &StreamName,
        keys: &[Option<&str>],
        head: u64,
    ) -> Result<Vec<(u64, u64)>> {
        let parameters = params![stream.as_str(), keys];
        let known: Vec<Option<i64>> = value(&self.connections, KNOWN, parameters).await?;
        let places = (1..).zip(keys.iter().zip(known));
        let places = places.filter_map(|(place, (key, number))| key.map(|_| (place, number)));
        let places = places.map(|(place, number)| match number.map(i64::cast_unsigned) {
            Some(number) if number <= head => Ok((place, number)),
            _ => Err(Error::backend(WindowEnded)),
        });
        places.collect()
    }
}

/// A publish key that was forgotten, or used again, before the number of its message was read.
#[derive(Debug, thiserror::Error)]
#[error("the window of a publish key ended while its message was published")]
struct WindowEnded;

impl Append for Appender {
    async fn append(
        &self,
        stream: &StreamName,
        messages: &[NewMessage],
        retention: Option<Retention>,
    ) -> Result<Vec<MessageId>, AppendError> {
        let columns = Columns::new(messages).map_err(AppendError::Refused)?;
        let (max_len, max_age) = retention.unwrap_or_default().bounds();
        let trim_pending = retention.map(|it| it.trim_pending);
        let parameters = params![
            stream.as_str(),
            max_len,
            max_age,
            trim_pending,
            columns.payloads,
            columns.headers,
            columns.ends,
            columns.keys,
            columns.windows
        ];
        let appended = row(&self.connections, APPEND, parameters).await;
        let row = appended
            .and_then(|row| row.ok_or(DatabaseError::NoRow))
            .map_err(failure::append_error)?;
        if !messages.is_empty() {
            self.wakes.wake(stream);
            self.announcer.announce(stream);
        }
        // The messages are there, whatever cannot be read.
        let ids = self.ids(stream, &row, messages.len(), &columns).await;
        Ok(ids.map_err(Error::outcome_unknown)?)
    }
}

/// Messages as the columns of a table.
pub(super) struct Columns<'a> {
    pub(super) payloads: Vec<&'a [u8]>,
    pub(super) headers: Vec<Option<Vec<u8>>>,
    /// The bytes of the messages up to each.
    pub(super) ends: Vec<i64>,
    /// `None` when no message has one.
    pub(super) keys: Option<Vec<Option<&'a str>>>,
    pub(super) windows: Option<Vec<Option<i64>>>,
}

impl<'a> Columns<'a> {
    pub(super) fn new(messages: &'a [NewMessage]) -> Result<Self> {
        let headers = messages
            .iter()
            .map(|message| stored::encode(&message.headers));
        let headers: Vec<Option<Vec<u8>>> = headers
            .map(|headers| Ok(headers?.map(String::into_bytes)))
            .collect::<Result<_>>()?;
        let mut end = 0;
        let ends = messages.iter().zip(&headers).map(|(message, headers)| {
            end += message.payload.len() + headers.as_ref().map_or(0, Vec::len);
            i64::try_from(end).unwrap_or(i64::MAX)
        });
        let has_keys = messages.iter().any(|message| message.publish_key.is_some());
        let keys = || messages.iter().map(|message| message.publish_key.as_ref());
        Ok(Self {
            payloads: messages.iter().map(|message| &*message.payload).collect(),
            ends: ends.collect(),
            headers,
            keys: has_keys.then(|| keys().map(|key| key.map(|key| &*key.key)).collect()),
            windows: has_keys.then(|| {
                keys()
                    .map(|key| key.map(|key| time::millis(key.window)))
                    .collect()
            }),
        })
    }
}
