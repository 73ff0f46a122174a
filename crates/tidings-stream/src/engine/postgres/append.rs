//! Appending to a stream.

use std::collections::HashMap;
use std::sync::Arc;

use tidings_postgres::{Connections, Error as DatabaseError, params};

use super::announce::Announcer;
use super::failure;
use super::rows::{get, number, row};
use crate::engine::group_commit::{Append, AppendError};
use crate::engine::{Wakes, numbering, stored, time};
use crate::{Error, MessageId, NewMessage, Result, Retention, StreamName};

/// Most messages with publish keys of a batch whose ids may all be in the reply. The database returns no more
/// than so many: what it sends while it holds the lock of the stream has to fit into the buffers of the
/// connection, or a client that is stopped stops all others.
const MAX_UNFORESEEN: usize = 500;

/// How often a batch is tried whose keys others change at the same time.
const TRIES: u32 = 5;

/// What the database says of such a batch.
const KEYS_HAVE_CHANGED: &str = "TD001";

const APPEND: &str =
    "SELECT first, unforeseen FROM tidings_stream_append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";

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
}

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
        let mut tries = 1;
        let (row, foreseen) = loop {
            let foreseen = match &columns.keys {
                Some(keys) if columns.keyed() > MAX_UNFORESEEN => {
                    Some(self.foresee(stream, keys).await?)
                }
                _ => None,
            };
            let parameters = params![
                stream.as_str(),
                max_len,
                max_age,
                trim_pending,
                columns.payloads,
                columns.headers,
                columns.ends,
                columns.keys,
                columns.windows,
                foreseen
            ];
            let appended = row(&self.connections, APPEND, parameters).await;
            match appended.and_then(|row| row.ok_or(DatabaseError::NoRow)) {
                Ok(row) => break (row, foreseen.unwrap_or_default()),
                // Nothing of it was appended.
                Err(error)
                    if tries < TRIES
                        && (error.code()).is_some_and(|it| it.code() == KEYS_HAVE_CHANGED) =>
                {
                    tries += 1;
                }
                Err(error) => return Err(failure::append_error(error)),
            }
        };
        if !messages.is_empty() {
            self.wakes.wake(stream);
            self.announcer.announce(stream);
        }
        let first = number(&row, 0)?;
        let unforeseen: Option<Vec<i64>> = get(&row, 1)?;
        let unforeseen = unforeseen.unwrap_or_default();
        let pairs = unforeseen.chunks_exact(2);
        let pairs = pairs.map(|pair| (pair[0].cast_unsigned(), pair[1].cast_unsigned()));
        let expected = |place: usize, before: &[MessageId]| {
            let expected = foreseen.get(place).copied().flatten()?;
            match usize::try_from(-expected) {
                Ok(earlier) => before.get(earlier.checked_sub(1)?).copied(),
                Err(_positive) => Some(MessageId::from_u64(expected.cast_unsigned())),
            }
        };
        Ok(numbering::ids(first, messages.len(), pairs, expected))
    }
}

impl Appender {
    /// What is to be expected of messages with publish keys: the number of the one that a message repeats;
    /// minus the place, counted from 1, of an earlier one of the same batch that has its key; or `None` for
    /// one that is new.
    async fn foresee(
        &self,
        stream: &StreamName,
        keys: &[Option<&str>],
    ) -> Result<Vec<Option<i64>>, AppendError> {
        let known = row(&self.connections, KNOWN, params![stream.as_str(), keys]).await;
        // Nothing was to be appended yet, so that the outcome is known.
        let known = known.map_err(|error| match error {
            DatabaseError::Closed => Error::Closed,
            error => Error::backend(error),
        })?;
        let known: Option<Vec<Option<i64>>> = match known {
            Some(row) => get(&row, 0)?,
            None => None,
        };
        let known = known.unwrap_or_default();
        let mut first_places: HashMap<&str, i64> = HashMap::with_capacity(keys.len());
        let expected = (1..).zip(keys).zip(known).map(|((place, key), known)| {
            let first = *first_places.entry((*key)?).or_insert(place);
            known.or((first < place).then_some(-first))
        });
        Ok(expected.collect())
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

    /// How many messages have a publish key.
    fn keyed(&self) -> usize {
        self.keys.iter().flatten().flatten().count()
    }
}
