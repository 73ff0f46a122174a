//! Removing what a stream's retention does not keep.

use tidings_postgres::tokio_postgres::types::Type;

use super::connections::Connections;
use super::{delete, failure, member};
use crate::Error;

/// Most messages that one transaction removes, so that publishers get in between.
pub(super) const CHUNK: i64 = 1000;

const BOUNDED: &str = "
    SELECT stream_id FROM tidings_stream WHERE max_len IS NOT NULL OR max_age IS NOT NULL";

const TRIM: &str = "SELECT tidings_stream_trim($1, $2)";

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
    delete::remove_all_hidden(connections).await?;
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
