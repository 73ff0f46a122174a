//! Consumer groups.

use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::tokio_postgres::types::Type;

use super::failure;
use crate::engine::{GroupKey, time};
use crate::{Error, MessageId, StartFrom};

const OPEN: &str = "SELECT tidings_stream_open_group($1, $2, $3, $4)";

const SEEK: &str = "SELECT o_known, o_newest FROM tidings_stream_seek($1, $2, $3, $4)";

const DELETE: &str = "SELECT tidings_stream_delete_group($1, $2)";

const FIND: &str = "SELECT tidings_stream_find_group($1, $2)";

/// Creates a group, and its stream, unless they exist.
pub(super) async fn open(
    connections: &Connections,
    key: &GroupKey,
    start: StartFrom,
) -> Result<(), Error> {
    let row = ask(connections, OPEN, key, start).await?;
    match row.try_get(0).map_err(failure::column)? {
        None => Ok(()),
        Some(newest) => Err(ahead(start, newest)),
    }
}

/// Moves a group, and drops what it has pending.
pub(super) async fn seek(
    connections: &Connections,
    key: &GroupKey,
    to: StartFrom,
) -> Result<(), Error> {
    let row = ask(connections, SEEK, key, to).await?;
    if !row.try_get::<_, bool>(0).map_err(failure::column)? {
        return Err(Error::UnknownGroup);
    }
    match row.try_get(1).map_err(failure::column)? {
        None => Ok(()),
        Some(newest) => Err(ahead(to, newest)),
    }
}

/// Deletes a group and what it has pending.
pub(super) async fn delete(connections: &Connections, key: &GroupKey) -> Result<bool, Error> {
    let parameters = [
        (&key.stream.as_str() as _, Type::TEXT),
        (&key.group.as_str() as _, Type::TEXT),
    ];
    let row = connections.row(DELETE, &parameters).await?;
    row.try_get(0).map_err(failure::column)
}

/// The id of a group in the database.
pub(super) async fn find(connections: &Connections, key: &GroupKey) -> Result<i64, Error> {
    let parameters = [
        (&key.stream.as_str() as _, Type::TEXT),
        (&key.group.as_str() as _, Type::TEXT),
    ];
    let row = connections.opt_row(FIND, &parameters).await?;
    let row = row.ok_or(Error::UnknownGroup)?;
    row.try_get(0).map_err(failure::column)
}

/// Asks about a place of a group.
async fn ask(
    connections: &Connections,
    statement: &'static str,
    key: &GroupKey,
    start: StartFrom,
) -> Result<Row, Error> {
    let (kind, value) = place(start);
    let parameters = [
        (&key.stream.as_str() as _, Type::TEXT),
        (&key.group.as_str() as _, Type::TEXT),
        (&kind as _, Type::INT4),
        (&value as _, Type::INT8),
    ];
    Ok(connections.row(statement, &parameters).await?)
}

/// A place as parameters: its kind, and where.
fn place(start: StartFrom) -> (i32, i64) {
    match start {
        StartFrom::Latest => (0, 0),
        StartFrom::Earliest => (1, 0),
        StartFrom::After(id) => (2, i64::try_from(id.as_u64()).unwrap_or(i64::MAX)),
        StartFrom::At(at) => (3, time::first_milli(at)),
    }
}

fn ahead(start: StartFrom, newest: i64) -> Error {
    let start = match start {
        StartFrom::After(id) => id,
        // No other place can be ahead.
        _ => MessageId::from_u64(0),
    };
    Error::StartAhead {
        start,
        newest: MessageId::from_u64(newest.cast_unsigned()),
    }
}
