//! Appending to a stream.

use std::collections::HashMap;
use std::sync::Arc;

use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::types::Type;

use super::announce::Announcer;
use super::failure;
use crate::engine::group_commit::{Append, AppendError};
use crate::engine::{Wakes, headers, numbering, time};
use crate::{Error, MessageId, NewMessage, Retention, StreamName};

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

const SET_RETENTION: &str = "SELECT tidings_stream_set_retention($1, $2, $3, $4)";

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
        let mut tries = 1;
        let (row, foreseen) = loop {
            let foreseen = match &columns.keys {
                Some(keys) if columns.keyed() > MAX_UNFORESEEN => {
                    Some(self.foresee(stream, keys).await?)
                }
                _ => None,
            };
            let parameters = [
                (&stream.as_str() as _, Type::TEXT),
                (&max_len as _, Type::INT8),
                (&max_age as _, Type::INT8),
                (&trim_pending as _, Type::BOOL),
                (&columns.payloads as _, Type::BYTEA_ARRAY),
                (&columns.headers as _, Type::BYTEA_ARRAY),
                (&columns.ends as _, Type::INT8_ARRAY),
                (&columns.keys as _, Type::TEXT_ARRAY),
                (&columns.windows as _, Type::INT8_ARRAY),
                (&foreseen as _, Type::INT8_ARRAY),
            ];
            match self.connections.row(APPEND, &parameters).await {
                Ok(row) => break (row, foreseen.unwrap_or_default()),
                // Nothing of it was appended.
                Err(error)
                    if tries < TRIES
                        && error
                            .code()
                            .is_some_and(|it| it.code() == KEYS_HAVE_CHANGED) =>
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
        let replied = |error| AppendError::Failed(failure::column(error));
        let first: i64 = row.try_get(0).map_err(replied)?;
        let unforeseen: Option<Vec<i64>> = row.try_get(1).map_err(replied)?;
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
        let first = first.cast_unsigned();
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
        let parameters = [
            (&stream.as_str() as _, Type::TEXT),
            (&keys as _, Type::TEXT_ARRAY),
        ];
        let known = self.connections.row(KNOWN, &parameters).await;
        // Nothing was to be appended yet, so that the outcome is known.
        let known = known.map_err(|error| {
            AppendError::Failed(match error {
                tidings_postgres::Error::Closed => Error::Closed,
                error => Error::backend(error),
            })
        })?;
        let known: Option<Vec<Option<i64>>> = known
            .try_get(0)
            .map_err(|error| AppendError::Failed(failure::column(error)))?;
        let known = known.unwrap_or_default();
        let mut first_places: HashMap<&str, i64> = HashMap::with_capacity(keys.len());
        let expected = (1..).zip(keys).zip(known).map(|((place, key), known)| {
            let first = *first_places.entry((*key)?).or_insert(place);
            known.or((first < place).then_some(-first))
        });
        Ok(expected.collect())
    }
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

    /// How many messages have a publish key.
    fn keyed(&self) -> usize {
        self.keys.iter().flatten().flatten().count()
    }
}
