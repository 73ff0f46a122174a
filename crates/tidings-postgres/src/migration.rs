//! Bringing a component's tables up to the version that the program knows.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use crate::Error;

/// A migration holds this lock for as long as its transaction lasts: a session may be shared behind a
/// pooler. Each statement must see what was committed while it waited for the lock.
const LOCK: &str = "
    SET LOCAL client_min_messages = warning;
    SELECT pg_advisory_xact_lock(6074931807742212);";

const CREATE: &str = "
    CREATE TABLE IF NOT EXISTS tidings_schema (
        component text PRIMARY KEY,
        version integer NOT NULL
    )";

const VERSION: &str = "SELECT version FROM tidings_schema WHERE component = $1";

const RECORD: &str = "
    INSERT INTO tidings_schema (component, version) VALUES ($1, $2)
    ON CONFLICT (component) DO UPDATE SET version = excluded.version";

/// Applies the steps that the database has not seen yet. A transaction that is left open by an error
/// ends with the connection, which is not used again.
pub(crate) async fn apply(
    client: &tokio_postgres::Client,
    begin: &str,
    component: &'static str,
    steps: &[&str],
) -> Result<(), Error> {
    match unseen(client, component, steps).await {
        Ok([]) => return Ok(()),
        Ok(_) => {}
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {}
        Err(error) => return Err(error),
    }
    batch(client, begin).await?;
    batch(client, LOCK).await?;
    batch(client, CREATE).await?;
    // Another process may have been faster.
    for step in unseen(client, component, steps).await? {
        batch(client, step).await?;
    }
    let version = i32::try_from(steps.len()).unwrap_or(i32::MAX);
    let parameters: [(&(dyn ToSql + Sync), Type); 2] =
        [(&component, Type::TEXT), (&version, Type::INT4)];
    let recorded = client.execute_typed(RECORD, &parameters).await;
    recorded.map_err(Error::of_statement)?;
    batch(client, "COMMIT").await
}

async fn batch(client: &tokio_postgres::Client, statements: &str) -> Result<(), Error> {
    let done = client.batch_execute(statements).await;
    done.map_err(Error::of_statement)
}

async fn unseen<'a>(
    client: &tokio_postgres::Client,
    component: &'static str,
    steps: &'a [&'a str],
) -> Result<&'a [&'a str], Error> {
    let parameters: [(&(dyn ToSql + Sync), Type); 1] = [(&component, Type::TEXT)];
    let row = client.query_typed_opt(VERSION, &parameters).await;
    let version = match row.map_err(Error::of_statement)? {
        Some(row) => row.try_get(0).map_err(Error::of_statement)?,
        None => 0_i32,
    };
    let found = usize::try_from(version).unwrap_or(0);
    steps.get(found..).ok_or(Error::NewerSchema {
        component,
        found,
        known: steps.len(),
    })
}
