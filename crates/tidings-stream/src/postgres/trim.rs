//! Removing what a stream's retention does not keep, and streams.

use tidings_postgres::tokio_postgres::types::Type;

use super::connections::Connections;
use super::{failure, member};
use crate::{Error, StreamName};

/// Most messages that one transaction removes, so that publishers get in between.
const CHUNK: i64 = 1000;

const BOUNDED: &str = "
    SELECT stream_id FROM tidings_stream WHERE max_len IS NOT NULL OR max_age IS NOT NULL";

const TRIM: &str = "SELECT tidings_stream_trim($1, $2)";

const HIDE: &str = "SELECT tidings_stream_hide($1)";

const HIDDEN: &str = "
    SELECT stream_id FROM tidings_stream WHERE name >= E'\\x01' AND name < E'\\x02'";

const REMOVE: &str = "SELECT tidings_stream_remove_hidden($1, $2)";

/// Several may forget at a time, and share the work.
const FORGET_KEYS: &str = "
    WITH expired AS MATERIALIZED (
        SELECT stream_id, key FROM tidings_stream_publish_key
        WHERE expires <= tidings_stream_now() ORDER BY expires LIMIT $1 FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM tidings_stream_publish_key k USING expired e
        WHERE k.stream_id = e.stream_id AND k.key = e.key RETURNING 1)
    SELECT count(*) FROM gone";

/// Trims every stream, and forgets what has expired. Answers how many messages were removed.
pub(super) async fn trim_all(connections: &Connections) -> Result<u64, Error> {
    for row in connections.query(HIDDEN, &[]).await? {
        remove_hidden(connections, row.try_get(0).map_err(failure::column)?).await?;
    }
    while count(connections, FORGET_KEYS, &[CHUNK]).await? >= CHUNK {}
    member::forget_the_gone(connections).await?;
    let mut total = 0;
    for row in connections.query(BOUNDED, &[]).await? {
        let stream_id: i64 = row.try_get(0).map_err(failure::column)?;
        loop {
            let removed = count(connections, TRIM, &[stream_id, CHUNK]).await?;
            total += removed.cast_unsigned();
            if removed < CHUNK {
                break;
            }
        }
    }
    Ok(total)
}

/// Takes a stream out of sight, and answers its id; `None` when there is none.
pub(super) async fn hide(
    connections: &Connections,
    stream: &StreamName,
) -> Result<Option<i64>, Error> {
    let parameters = [(&stream.as_str() as _, Type::TEXT)];
    let row = connections.row(HIDE, &parameters).await?;
    row.try_get(0).map_err(failure::column)
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

async fn count(
    connections: &Connections,
    statement: &'static str,
    parameters: &[i64],
) -> Result<i64, Error> {
    let parameters: Vec<_> = parameters
        .iter()
        .map(|parameter| (parameter as _, Type::INT8))
        .collect();
    let row = connections.row(statement, &parameters).await?;
    row.try_get(0).map_err(failure::column)
}
