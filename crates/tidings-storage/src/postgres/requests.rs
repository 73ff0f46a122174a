//! The table of requests that were made under an idempotency key.

use tidings_postgres::Parameter;
use tidings_postgres::tokio_postgres::types::Type;
use tidings_postgres::tokio_postgres::{Error, GenericClient, Row};

use super::{Known, failure};
use crate::idempotency::{KEPT, Once};
use crate::stored::Kept;
use crate::{CLEANED_AT_ONCE, KeptResponse, NewResponse, StorageError};

const CLAIM: &str = "SELECT n, is_locked, fingerprint, events, response
    FROM tidings_server_claim($1, make_interval(secs => $2))";

const RECORD: &str = "
    INSERT INTO tidings_server_request (key, fingerprint, events, response)
    SELECT * FROM unnest($1::text[], $2::bytea[], $3::text[], $4::text[]) ORDER BY 1
    ON CONFLICT (key) DO UPDATE SET fingerprint = excluded.fingerprint, events = excluded.events,
        response = excluded.response, accepted_at = excluded.accepted_at";

/// What a [`CLAIM`] finds, without its lock.
const FIND: &str =
    "SELECT 1::bigint, true, fingerprint, events, response FROM tidings_server_request
    WHERE key = $1 AND accepted_at > clock_timestamp() - make_interval(secs => $2)";

const RESPONSES: &str = "SELECT key, response FROM tidings_server_request
    WHERE key > $1 ORDER BY key LIMIT $2";

const REPLACE: &str = "UPDATE tidings_server_request AS request SET response = given.new
    FROM unnest($1::text[], $2::text[], $3::text[]) AS given (key, old, new)
    WHERE request.key = given.key COLLATE \"C\" AND request.response = given.old";

/// Requests that one step looks through.
const RESPONSES_AT_ONCE: i64 = 1000;

/// The age is compared again, because a key for whose row it has waited may have been recorded anew. It waits
/// for no disk: what a crash brings back is deleted again.
const CLEAN: &str = "DELETE FROM tidings_server_request
    WHERE (SELECT set_config('synchronous_commit', 'off', true)) IS NOT NULL
    AND accepted_at <= clock_timestamp() - make_interval(secs => $1) AND key = ANY (ARRAY(
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
pub(super) struct Record<'a, 'k> {
    pub(super) once: &'a Once,
    pub(super) kept: Kept<'k>,
}

/// What became of requests, column by column.
pub(super) struct Recording<'a> {
    keys: Vec<&'a str>,
    fingerprints: Vec<&'a [u8]>,
    events: Vec<String>,
    responses: Vec<Option<String>>,
}

impl<'a> Recording<'a> {
    pub(super) fn new<'k>(
        records: impl IntoIterator<Item = Record<'a, 'k>>,
    ) -> Result<Self, StorageError> {
        let mut recording = Self {
            keys: Vec::new(),
            fingerprints: Vec::new(),
            events: Vec::new(),
            responses: Vec::new(),
        };
        for Record { once, kept } in records {
            let (events, response) = kept.columns()?;
            recording.keys.push(once.key.as_str());
            recording.fingerprints.push(&once.fingerprint);
            recording.events.push(events);
            recording.responses.push(response.map(str::to_owned));
        }
        Ok(recording)
    }

    /// Stores it, if there is something. The keys have been [claimed](claim).
    pub(super) async fn store(
        &self,
        client: &(impl GenericClient + Sync),
    ) -> Result<(), StorageError> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let parameters: [Parameter<'_>; 4] = [
            (&self.keys, Type::TEXT_ARRAY),
            (&self.fingerprints, Type::BYTEA_ARRAY),
            (&self.events, Type::TEXT_ARRAY),
            (&self.responses, Type::TEXT_ARRAY),
        ];
        let recorded = client.execute_typed(RECORD, &parameters).await;
        recorded.map(drop).map_err(failure)
    }
}

/// What is known of a request, without a lock.
pub(super) async fn find(
    client: &(impl GenericClient + Sync),
    once: &Once,
) -> Result<Result<Known, StorageError>, Error> {
    let key = once.key.as_str();
    let parameters: [Parameter<'_>; 2] = [(&key, Type::TEXT), (&kept(), Type::FLOAT8)];
    let found = client.query_typed(FIND, &parameters).await?;
    Ok(found
        .first()
        .map_or(Ok(Known::New), |row| known_of(once, row)))
}

/// A page of requests behind a key.
pub(super) async fn responses(
    client: &(impl GenericClient + Sync),
    after: &str,
) -> Result<Vec<KeptResponse>, Error> {
    let parameters: [Parameter<'_>; 2] = [(&after, Type::TEXT), (&RESPONSES_AT_ONCE, Type::INT8)];
    let rows = client.query_typed(RESPONSES, &parameters).await?;
    let read = |row: &Row| {
        Ok(KeptResponse {
            key: row.try_get(0)?,
            response: row.try_get(1)?,
        })
    };
    rows.iter().map(read).collect()
}

/// Replaces responses that are still what they were.
pub(super) async fn replace(
    client: &(impl GenericClient + Sync),
    new: &[NewResponse],
) -> Result<u64, Error> {
    let column = |of: fn(&NewResponse) -> &str| new.iter().map(of).collect::<Vec<&str>>();
    let (keys, old) = (column(|it| &it.key), column(|it| &it.old));
    let new = column(|it| &it.new);
    let parameters: [Parameter<'_>; 3] = [
        (&keys, Type::TEXT_ARRAY),
        (&old, Type::TEXT_ARRAY),
        (&new, Type::TEXT_ARRAY),
    ];
    client.execute_typed(REPLACE, &parameters).await
}

/// Deletes keys that are too old to matter; returns how many, at most [`CLEANED_AT_ONCE`].
pub(super) async fn clean(
    client: &(impl GenericClient + Sync),
) -> Result<u64, tidings_postgres::tokio_postgres::Error> {
    let most = i64::from(CLEANED_AT_ONCE);
    let parameters: [Parameter<'_>; 2] = [(&kept(), Type::FLOAT8), (&most, Type::INT8)];
    client.execute_typed(CLEAN, &parameters).await
}

/// How long a key is remembered, in seconds.
fn kept() -> f64 {
    KEPT.as_secs_f64()
}
