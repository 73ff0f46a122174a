//! The table of requests that were made under an idempotency key.

use tidings_notify::Event;
use tidings_postgres::Parameter;
use tidings_postgres::tokio_postgres::types::Type;
use tidings_postgres::tokio_postgres::{GenericClient, Row};

use super::{Known, failure};
use crate::idempotency::{KEPT, Once};
use crate::storage::{StorageError, stored};

/// Keys that one cleaning deletes at most, so that the transaction is short.
const CLEANED_AT_ONCE: i64 = 1000;

const CLAIM: &str = "SELECT n, is_locked, fingerprint, events, response
    FROM tidings_server_claim($1, make_interval(secs => $2))";

const RECORD: &str = "
    INSERT INTO tidings_server_request (key, fingerprint, events, response)
    SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[], $4::text[]) ORDER BY 1
    ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, events = excluded.events,
        response = excluded.response, accepted_at = excluded.accepted_at";

const CLEAN: &str = "DELETE FROM tidings_server_request WHERE key = ANY (ARRAY(
    SELECT key FROM tidings_server_request
    WHERE accepted_at <= clock_timestamp() - make_interval(secs => $1)
    ORDER BY accepted_at LIMIT $2))";

/// Locks the keys until the transaction ends, and returns what is known of each request. A key that
/// another transaction has locked is [`Known::Busy`].
pub(super) async fn claim(
    client: &(impl GenericClient + Sync),
    requests: &[&Once],
) -> Result<Vec<Known>, StorageError> {
    let keys: Vec<&str> = requests.iter().map(|once| once.key.as_str()).collect();
    let parameters: [Parameter<'_>; 2] = [(&keys, Type::TEXT_ARRAY), (&kept(), Type::FLOAT8)];
    let rows = client.query_typed(CLAIM, &parameters).await;
    let rows = rows.map_err(failure)?;
    if rows.len() != requests.len() {
        return Err(StorageError::failed(
            "the database returned another number of keys",
        ));
    }
    let known = requests.iter().zip(&rows);
    known.map(|(once, row)| known_of(once, row)).collect()
}

fn known_of(once: &Once, row: &Row) -> Result<Known, StorageError> {
    let is_locked: bool = row.try_get(1).map_err(StorageError::failed)?;
    let fingerprint: Option<&[u8]> = row.try_get(2).map_err(StorageError::failed)?;
    Ok(match fingerprint {
        _ if !is_locked => Known::Busy,
        None => Known::New,
        Some(fingerprint) if fingerprint == once.fingerprint => Known::Repeated {
            events: row.try_get(3).map_err(StorageError::failed)?,
            response: row.try_get(4).map_err(StorageError::failed)?,
        },
        Some(_) => Known::Conflict,
    })
}

/// What is recorded of one request.
pub(super) struct Record<'a> {
    pub(super) once: &'a Once,
    pub(super) events: &'a [Event],
    pub(super) response: Option<&'a str>,
}

/// Stores what became of requests whose keys were [claimed](claim).
pub(super) async fn record(
    client: &(impl GenericClient + Sync),
    records: &[Record<'_>],
) -> Result<(), StorageError> {
    if records.is_empty() {
        return Ok(());
    }
    let keys: Vec<&str> = records.iter().map(|it| it.once.key.as_str()).collect();
    let fingerprints: Vec<&[u8]> = records
        .iter()
        .map(|it| it.once.fingerprint.as_slice())
        .collect();
    let events = records.iter().map(|it| stored::encode(it.events));
    let events: Vec<String> = events.collect::<Result<_, _>>()?;
    let responses: Vec<Option<&str>> = records.iter().map(|it| it.response).collect();
    let parameters: [Parameter<'_>; 4] = [
        (&keys, Type::TEXT_ARRAY),
        (&fingerprints, Type::BYTEA_ARRAY),
        (&events, Type::TEXT_ARRAY),
        (&responses, Type::TEXT_ARRAY),
    ];
    let recorded = client.execute_typed(RECORD, &parameters).await;
    recorded.map(drop).map_err(failure)
}

/// Deletes keys that are too old to matter; returns how many, at most a thousand.
pub(super) async fn clean(
    client: &(impl GenericClient + Sync),
) -> Result<u64, tidings_postgres::tokio_postgres::Error> {
    let parameters: [Parameter<'_>; 2] = [(&kept(), Type::FLOAT8), (&CLEANED_AT_ONCE, Type::INT8)];
    client.execute_typed(CLEAN, &parameters).await
}

/// How long a key is remembered, in seconds.
fn kept() -> f64 {
    KEPT.as_secs_f64()
}
