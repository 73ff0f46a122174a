//! What groups have begun and not finished.

use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::tokio_postgres::types::Type;

use super::{failure, group};
use crate::engine::{GroupKey, time};
use crate::{Error, MessageId, PendingMessage};

const PAGE: &str = "
    SELECT number, attempts, consumer, age, due_in, last_error
    FROM tidings_stream_pending($1, $2, $3)";

/// Reads a page of the pending messages of a group, in the order of their ids.
pub(super) async fn page(
    connections: &Connections,
    key: &GroupKey,
    after: Option<MessageId>,
    max: usize,
) -> Result<Vec<PendingMessage>, Error> {
    let group_id = group::find(connections, key).await?;
    let after = after.map_or(0, MessageId::as_u64);
    let after = i64::try_from(after).unwrap_or(i64::MAX);
    let limit = i64::try_from(max).unwrap_or(i64::MAX);
    let parameters = [
        (&group_id as _, Type::INT8),
        (&after as _, Type::INT8),
        (&limit as _, Type::INT8),
    ];
    let rows = connections.query(PAGE, &parameters).await?;
    rows.iter().map(read).collect()
}

fn read(row: &Row) -> Result<PendingMessage, Error> {
    let number = |column| row.try_get::<_, i64>(column).map_err(failure::column);
    let attempts: i32 = row.try_get(1).map_err(failure::column)?;
    let error: Option<Vec<u8>> = row.try_get(5).map_err(failure::column)?;
    Ok(PendingMessage {
        id: MessageId::from_u64(number(0)?.cast_unsigned()),
        attempts: attempts.cast_unsigned(),
        consumer: row.try_get(2).map_err(failure::column)?,
        age: time::duration(number(3)?),
        due_in: time::duration(number(4)?),
        last_error: error
            .map(String::from_utf8)
            .transpose()
            .map_err(Error::backend)?,
    })
}
