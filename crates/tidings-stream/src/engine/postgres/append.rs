//! Appending to a stream.

use std::sync::Arc;

use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::types::Type;

use super::announce::Announcer;
use super::failure;
use crate::engine::group_commit::{Append, AppendError};
use crate::engine::{Wakes, headers, time};
use crate::{Error, MessageId, NewMessage, Retention, StreamName};

/// Most payload bytes of one batch (256 MiB): the server has all of it in its memory.
const MAX_BATCH_BYTES: usize = 256 << 20;

const APPEND: &str =
    "SELECT first, runs FROM tidings_stream_append($1, $2, $3, $4, $5, $6, $7, $8, $9)";

const SET_RETENTION: &str = "SELECT tidings_stream_set_retention($1, $2, $3, $4)";

/// Refuses a batch that the server could not take.
pub(super) fn check(messages: &[NewMessage]) -> Result<(), Error> {
    let length = messages.iter().map(|message| message.payload.len()).sum();
    if length > MAX_BATCH_BYTES {
        return Err(Error::TooLarge {
            field: "batch",
            length,
            limit: MAX_BATCH_BYTES,
        });
    }
    Ok(())
}

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
}

impl Append for Appender {
    async fn append(
        &self,
        stream: &StreamName,
        messages: &[NewMessage],
        retention: Option<Retention>,
    ) -> Result<Vec<MessageId>, AppendError> {
        let columns = Columns::new(messages).map_err(AppendError::Refused)?;
        let bounds = retention.map(Bounds::new);
        let max_len = bounds.as_ref().and_then(|bounds| bounds.max_len);
        let max_age = bounds.as_ref().and_then(|bounds| bounds.max_age);
        let trim_pending = bounds.map(|bounds| bounds.trim_pending);
        let row = self
            .connections
            .row(
                APPEND,
                &[
                    (&stream.as_str(), Type::TEXT),
                    (&max_len, Type::INT8),
                    (&max_age, Type::INT8),
                    (&trim_pending, Type::BOOL),
                    (&columns.payloads, Type::BYTEA_ARRAY),
                    (&columns.headers, Type::BYTEA_ARRAY),
                    (&columns.ends, Type::INT8_ARRAY),
                    (&columns.keys, Type::TEXT_ARRAY),
                    (&columns.windows, Type::INT8_ARRAY),
                ],
            )
            .await
            .map_err(failure::append_error)?;
        if !messages.is_empty() {
            self.wakes.wake(stream);
            self.announcer.announce(stream);
        }
        let replied = |error| AppendError::Failed(failure::column(error));
        let first: i64 = row.try_get(0).map_err(replied)?;
        let runs: Option<Vec<i64>> = row.try_get(1).map_err(replied)?;
        let runs = runs.unwrap_or_else(|| vec![1, first]);
        Ok(expand(&runs, messages.len()))
    }
}

/// The ids of so many messages. Each run is the place of its first message, counted from 1, and the number
/// of that; those after it follow.
fn expand(runs: &[i64], count: usize) -> Vec<MessageId> {
    let mut runs = runs.chunks_exact(2).peekable();
    let (mut place, mut next) = (0, 0);
    (0..count)
        .map(|_| {
            place += 1;
            if let Some(run) = runs.next_if(|run| run[0] == place) {
                next = run[1].cast_unsigned();
            }
            next += 1;
            MessageId::from_u64(next - 1)
        })
        .collect()
}

/// A retention as columns.
struct Bounds {
    max_len: Option<i64>,
    max_age: Option<i64>,
    trim_pending: bool,
}

impl Bounds {
    fn new(retention: Retention) -> Self {
        let max_len = retention.max_len;
        Self {
            max_len: max_len.map(|max| i64::try_from(max.get()).unwrap_or(i64::MAX)),
            max_age: retention.max_age.map(time::millis),
            trim_pending: retention.trim_pending,
        }
    }
}

/// Stores the retention of a stream, and trims to it.
pub(super) async fn set_retention(
    connections: &Connections,
    stream: &StreamName,
    retention: Retention,
) -> Result<(), Error> {
    let bounds = Bounds::new(retention);
    let parameters = [
        (&stream.as_str() as _, Type::TEXT),
        (&bounds.max_len as _, Type::INT8),
        (&bounds.max_age as _, Type::INT8),
        (&bounds.trim_pending as _, Type::BOOL),
    ];
    connections.query(SET_RETENTION, &parameters).await?;
    Ok(())
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
    pub(super) fn new(messages: &'a [NewMessage]) -> Result<Self, Error> {
        let headers = messages
            .iter()
            .map(|message| headers::encode(&message.headers));
        let headers: Vec<Option<Vec<u8>>> = headers
            .map(|headers| Ok(headers?.map(String::into_bytes)))
            .collect::<Result<_, Error>>()?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_numbers_are_expanded() {
        let ids = |runs: &[i64], count| -> Vec<u64> {
            let ids = expand(runs, count).into_iter();
            ids.map(MessageId::as_u64).collect()
        };
        assert_eq!(ids(&[1, 7], 3), [7, 8, 9]);
        assert_eq!(ids(&[1, 7, 3, 2, 4, 50], 5), [7, 8, 2, 50, 51]);
        assert_eq!(ids(&[1, 1], 0), [0; 0]);
    }
}
