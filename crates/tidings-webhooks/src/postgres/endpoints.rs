//! Endpoints: added, changed, found.

use jiff::Timestamp;
use tidings_notify::UserId;
use tidings_postgres::tokio_postgres::types::Type;
use tidings_postgres::tokio_postgres::{GenericClient, Row};
use tidings_postgres::{Connections, Parameter};

use super::events::Columns;
use super::schema::{column, duration_micros, limit, micros, time};
use super::statements::Statements;
use crate::columns::{first_wait, owner};
use crate::store::{
    Addressed, Audience, Disabled, Listener, Notice, StoredEndpoint, StoredSecrets,
};
use crate::{EndpointId, Owner, PreparedEndpoint, StoreError};

const COLUMNS: &str = "endpoint, user_id, settings, event_types, secrets, first_wait,
    disabled_because, removed, revision, created_at";

/// Stores an endpoint within the caller's own transaction. Call
/// [`Webhooks::announce_endpoint`](crate::Webhooks::announce_endpoint) after the commit.
///
/// # Errors
///
/// [`StoreError::TooManyEndpoints`] when its owner has as many as allowed: nothing is written then, and
/// the transaction can continue. Any other error ends the transaction.
///
/// # Cancel safety
///
/// A dropped future may have left the endpoint in the transaction; roll back then.
pub async fn create_endpoint_in(
    client: &(impl GenericClient + Sync),
    prepared: &PreparedEndpoint,
) -> Result<(), StoreError> {
    let insertion = Insertion::new(&prepared.stored, prepared.limit, prepared.notice.as_ref());
    let rows = client
        .query_typed(INSERT, &insertion.parameters())
        .await
        .map_err(tidings_postgres::Error::of_statement)?;
    let row = rows.first();
    insertion.outcome(row.ok_or_else(|| StoreError::backend("the database returned no row"))?)
}

/// The number of the newest endpoint, if the operator or one of some users has one.
pub(super) const NEWEST_IF_WANTED: &str = "
    SELECT (SELECT max(number) FROM tidings_webhook_endpoint)
    WHERE EXISTS (SELECT 1 FROM tidings_webhook_endpoint WHERE user_id IS NULL AND NOT removed)
        OR EXISTS (SELECT 1 FROM tidings_webhook_endpoint
            WHERE user_id = ANY ($1) AND NOT removed)";

/// Reads the row of [`NEWEST_IF_WANTED`], if there is one.
pub(super) fn newest(row: Option<&Row>) -> Result<Option<u64>, StoreError> {
    let number: Option<i64> = match row {
        Some(row) => row.try_get(0).map_err(column)?,
        None => None,
    };
    Ok(number.map(i64::unsigned_abs))
}

/// The change and the event about it are one transaction.
const INSERT: &str = "
    SELECT CASE WHEN tidings_webhook_insert_endpoint($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        THEN tidings_webhook_add($11, $12, $13, $14, $15, $16, $17, $18, $19, $20)::text
            IS NOT NULL
        ELSE false END";

const REPLACE: &str = "
    SELECT CASE WHEN tidings_webhook_replace_endpoint($1, $2, $3, $4, $5, $6, $7, $8, $9)
        THEN tidings_webhook_add($10, $11, $12, $13, $14, $15, $16, $17, $18, $19)::text
            IS NOT NULL
        ELSE false END";

pub(super) async fn insert(
    connections: &Connections,
    endpoint: &StoredEndpoint,
    limit: Option<usize>,
    notice: Option<&Notice>,
) -> Result<(), StoreError> {
    let insertion = Insertion::new(endpoint, limit, notice);
    let row = connections.row(INSERT, &insertion.parameters()).await?;
    insertion.outcome(&row)
}

/// The parameters of [`INSERT`].
struct Insertion<'a> {
    id: i64,
    user: Option<&'a str>,
    endpoint: &'a StoredEndpoint,
    because: Option<&'a str>,
    first_wait: Option<i64>,
    revision: i64,
    created_at: i64,
    most: Option<usize>,
    limit: Option<i64>,
    notice: Columns<'a>,
}

impl<'a> Insertion<'a> {
    fn new(endpoint: &'a StoredEndpoint, most: Option<usize>, notice: Option<&'a Notice>) -> Self {
        let (addressed, at) = about(notice);
        Self {
            id: endpoint.id.as_i64(),
            user: endpoint.owner.user().map(UserId::as_str),
            endpoint,
            because: endpoint.disabled.as_ref().map(|it| it.because.as_str()),
            first_wait: endpoint.first_wait.map(duration_micros),
            revision: endpoint.revision.cast_signed(),
            created_at: micros(endpoint.created_at),
            most,
            limit: most.map(limit),
            notice: Columns::new(addressed, at),
        }
    }

    fn parameters(&self) -> Vec<Parameter<'_>> {
        let mut parameters: Vec<Parameter<'_>> = vec![
            (&self.id, Type::INT8),
            (&self.user, Type::TEXT),
            (&self.endpoint.settings, Type::TEXT),
            (&self.endpoint.event_types, Type::TEXT),
            (&self.endpoint.secrets, Type::TEXT),
            (&self.first_wait, Type::INT8),
            (&self.because, Type::TEXT),
            (&self.revision, Type::INT8),
            (&self.created_at, Type::INT8),
            (&self.limit, Type::INT8),
        ];
        parameters.extend(self.notice.parameters());
        parameters
    }

    fn outcome(&self, row: &Row) -> Result<(), StoreError> {
        match (row.try_get(0).map_err(column)?, self.most) {
            (false, Some(limit)) => Err(StoreError::TooManyEndpoints { limit }),
            _ => Ok(()),
        }
    }
}

pub(super) async fn replace(
    statements: &impl Statements,
    endpoint: &StoredEndpoint,
    now: Timestamp,
    notice: Option<&Notice>,
) -> Result<bool, StoreError> {
    let (addressed, at) = about(notice);
    let notice = Columns::new(addressed, at);
    let because = endpoint.disabled.as_ref().map(|it| it.because.as_str());
    let id = endpoint.id.as_i64();
    let first_wait = endpoint.first_wait.map(duration_micros);
    let revision = endpoint.revision.cast_signed();
    let now = micros(now);
    let mut parameters: Vec<Parameter<'_>> = vec![
        (&id, Type::INT8),
        (&endpoint.settings, Type::TEXT),
        (&endpoint.event_types, Type::TEXT),
        (&endpoint.secrets, Type::TEXT),
        (&first_wait, Type::INT8),
        (&because, Type::TEXT),
        (&endpoint.removed, Type::BOOL),
        (&revision, Type::INT8),
        (&now, Type::INT8),
    ];
    parameters.extend(notice.parameters());
    let row = statements.row(REPLACE, &parameters).await?;
    row.try_get(0).map_err(column)
}

fn about(notice: Option<&Notice>) -> (&[Addressed], Timestamp) {
    match notice {
        Some(notice) => (std::slice::from_ref(&notice.addressed), notice.at),
        None => (&[], Timestamp::UNIX_EPOCH),
    }
}

/// Finds an endpoint, a removed one too.
pub(super) async fn find(
    connections: &Connections,
    id: EndpointId,
) -> Result<Option<StoredEndpoint>, StoreError> {
    let statement = format!("SELECT {COLUMNS} FROM tidings_webhook_endpoint WHERE endpoint = $1");
    let parameters = [(&id.as_i64() as _, Type::INT8)];
    let rows = connections.query(&statement, &parameters).await?;
    rows.first().map(from_row).transpose()
}

pub(super) async fn list(
    connections: &Connections,
    owner: &Owner,
) -> Result<Vec<StoredEndpoint>, StoreError> {
    let condition = match owner {
        Owner::Operator => "user_id IS NULL AND $1::text IS NULL",
        Owner::User(_) => "user_id = $1",
    };
    let statement = format!(
        "SELECT {COLUMNS} FROM tidings_webhook_endpoint
         WHERE {condition} AND NOT removed ORDER BY created_at, endpoint"
    );
    let user = owner.user().map(UserId::as_str);
    let rows = connections
        .query(&statement, &[(&user, Type::TEXT)])
        .await?;
    rows.iter().map(from_row).collect()
}

/// Ids are positive numbers.
pub(super) async fn secrets(
    connections: &Connections,
    after: Option<EndpointId>,
    most: usize,
) -> Result<Vec<StoredSecrets>, StoreError> {
    const SECRETS: &str = "
        SELECT endpoint, revision, secrets FROM tidings_webhook_endpoint
        WHERE endpoint > $1 ORDER BY endpoint LIMIT $2";
    let (after, most) = (after.map_or(-1, EndpointId::as_i64), limit(most));
    let parameters: [Parameter<'_>; 2] = [(&after, Type::INT8), (&most, Type::INT8)];
    let rows = connections.query(SECRETS, &parameters).await?;
    let read = |row: &Row| -> Result<_, StoreError> {
        let revision: i64 = row.try_get(1).map_err(column)?;
        Ok(StoredSecrets {
            endpoint: EndpointId::from_i64(row.try_get(0).map_err(column)?),
            revision: revision.cast_unsigned(),
            secrets: row.try_get(2).map_err(column)?,
        })
    };
    rows.iter().map(read).collect()
}

/// Rows are locked in the order of their ids, so that two instances do not wait for each other.
pub(super) async fn replace_secrets(
    connections: &Connections,
    secrets: &[StoredSecrets],
) -> Result<(), StoreError> {
    const REPLACE: &str = "
        WITH new AS MATERIALIZED (
            SELECT endpoint.endpoint, given.secrets
            FROM tidings_webhook_endpoint AS endpoint
            JOIN unnest($1::bigint[], $2::bigint[], $3::text[]) AS given (endpoint, revision, secrets)
                ON endpoint.endpoint = given.endpoint AND endpoint.revision = given.revision
            ORDER BY endpoint.endpoint FOR UPDATE OF endpoint)
        UPDATE tidings_webhook_endpoint AS endpoint
        SET secrets = new.secrets, revision = endpoint.revision + 1
        FROM new WHERE endpoint.endpoint = new.endpoint";
    let ids: Vec<_> = secrets.iter().map(|it| it.endpoint.as_i64()).collect();
    let revisions = secrets.iter().map(|it| it.revision.cast_signed());
    let revisions: Vec<_> = revisions.collect();
    let texts: Vec<_> = secrets.iter().map(|it| it.secrets.as_str()).collect();
    let parameters: [Parameter<'_>; 3] = [
        (&ids, Type::INT8_ARRAY),
        (&revisions, Type::INT8_ARRAY),
        (&texts, Type::TEXT_ARRAY),
    ];
    connections.query(REPLACE, &parameters).await?;
    Ok(())
}

pub(super) async fn audience(
    connections: &Connections,
    users: &[UserId],
) -> Result<Audience, StoreError> {
    /// A row without an endpoint names a user with deferred events.
    const AUDIENCE: &str = "
        SELECT endpoint, owner, event_types, first_wait, is_enabled, number
        FROM tidings_webhook_audience($1)";
    let users: Vec<&str> = users.iter().map(UserId::as_str).collect();
    let rows = connections
        .query(AUDIENCE, &[(&users, Type::TEXT_ARRAY)])
        .await?;
    let mut audience = Audience::default();
    for row in &rows {
        let owner = owner(row.try_get(1).map_err(column)?)?;
        let Some(endpoint) = row.try_get(0).map_err(column)? else {
            audience.deferred.insert(owner.user().cloned());
            continue;
        };
        audience.listeners.push(Listener {
            id: EndpointId::from_i64(endpoint),
            number: row.try_get::<_, i64>(5).map_err(column)?.unsigned_abs(),
            owner,
            event_types: row.try_get(2).map_err(column)?,
            first_wait: first_wait(row.try_get(3).map_err(column)?),
            enabled: row.try_get(4).map_err(column)?,
        });
    }
    Ok(audience)
}

fn from_row(row: &Row) -> Result<StoredEndpoint, StoreError> {
    let because: Option<String> = row.try_get(6).map_err(column)?;
    let revision: i64 = row.try_get(8).map_err(column)?;
    Ok(StoredEndpoint {
        id: EndpointId::from_i64(row.try_get(0).map_err(column)?),
        owner: owner(row.try_get(1).map_err(column)?)?,
        settings: row.try_get(2).map_err(column)?,
        event_types: row.try_get(3).map_err(column)?,
        secrets: row.try_get(4).map_err(column)?,
        first_wait: first_wait(row.try_get(5).map_err(column)?),
        disabled: because.map(|because| Disabled { because }),
        removed: row.try_get(7).map_err(column)?,
        revision: revision.cast_unsigned(),
        created_at: time(row.try_get(9).map_err(column)?)?,
    })
}
