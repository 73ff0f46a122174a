//! Deleting a message; deleting a stream, which may hold more messages than one transaction should remove.

use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::types::Type;

use super::failure;
use super::trim::CHUNK;
use crate::{Error, MessageId, StreamName};

const DELETE_MESSAGE: &str = "SELECT tidings_stream_delete_message($1, $2)";

const HIDE: &str = "SELECT tidings_stream_hide($1)";

const HIDDEN: &str = "SELECT tidings_stream_hidden()";

const REMOVE: &str = "SELECT tidings_stream_remove_hidden($1, $2)";

/// Deletes a message, and returns whether it was there.
pub(super) async fn delete_message(
    connections: &Connections,
    stream: &StreamName,
    id: MessageId,
) -> Result<bool, Error> {
    let Ok(number) = i64::try_from(id.as_u64()) else {
        return Ok(false);
    };
    let parameters = [
        (&stream.as_str() as _, Type::TEXT),
        (&number as _, Type::INT8),
    ];
    let row = connections.row(DELETE_MESSAGE, &parameters).await?;
    row.try_get(0).map_err(failure::column)
}

/// Takes a stream out of sight, and returns its id; `None` if there is none.
pub(super) async fn hide(
    connections: &Connections,
    stream: &StreamName,
) -> Result<Option<i64>, Error> {
    let parameters = [(&stream.as_str() as _, Type::TEXT)];
    let row = connections.row(HIDE, &parameters).await?;
    row.try_get(0).map_err(failure::column)
}

/// Removes what is left of all deleted streams.
pub(super) async fn remove_all_hidden(connections: &Connections) -> Result<(), Error> {
    for row in connections.query(HIDDEN, &[]).await? {
        remove_hidden(connections, row.try_get(0).map_err(failure::column)?).await?;
    }
    Ok(())
}

/// Removes what is left of a deleted stream.
pub(super) async fn remove_hidden(connections: &Connections, stream_id: i64) -> Result<(), Error> {
    loop {
        let parameters = [(&stream_id as _, Type::INT8), (&CHUNK as _, Type::INT8)];
        let row = connections.row(REMOVE, &parameters).await?;
        if row.try_get(0).map_err(failure::column)? {
            return Ok(());
        }
    }
}
