//! Removing what a stream's retention does not keep.

use tidings_postgres::Connections;
use tidings_postgres::tokio_postgres::types::Type;

use super::{delete, failure, member};
use crate::Error;
use crate::engine::trim_round::Round;

/// Most messages that one transaction removes, so that publishers get in between.
pub(super) const CHUNK: i64 = 1000;

const BOUNDED: &str = "SELECT tidings_stream_bounded()";

const TRIM: &str = "SELECT tidings_stream_trim($1, $2)";

const FORGET_KEYS: &str = "SELECT tidings_stream_forget_keys($1)";

/// Trims every stream, and forgets what has expired. Returns how many messages were removed. Streams
/// that cannot be trimmed do not keep others from it; the first of their errors is returned.
pub(super) async fn trim_all(connections: &Connections) -> Result<u64, Error> {
    delete::remove_all_hidden(connections).await?;
    while count(connections, FORGET_KEYS, &[CHUNK]).await? >= CHUNK {}
    member::forget_the_gone(connections).await?;
    let mut round = Round::default();
    for row in connections.query(BOUNDED, &[]).await? {
        let stream_id: i64 = row.try_get(0).map_err(failure::column)?;
        round.add(trim(connections, stream_id).await)?;
    }
    round.finish()
}

async fn trim(connections: &Connections, stream_id: i64) -> Result<u64, Error> {
    let mut total = 0;
    loop {
        let removed = count(connections, TRIM, &[stream_id, CHUNK]).await?;
        total += removed.cast_unsigned();
        if removed < CHUNK {
            return Ok(total);
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
