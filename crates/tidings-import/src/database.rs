//! Questions to the database.

use tidings_postgres::Client;
use tidings_postgres::tokio_postgres::types::FromSql;

use crate::{Error, Part};

pub(crate) const IS_UNFINISHED: &str = "SELECT to_regclass('tidings_import') IS NOT NULL";

/// Whether a running program shows that it uses one of the parts.
pub(crate) async fn is_in_use(client: &Client, parts: &[Part]) -> Result<bool, Error> {
    for lease in parts.iter().filter_map(|part| part.lease) {
        let query = format!("SELECT FROM {} WHERE {}", lease.table, lease.is_valid);
        if has_rows(client, lease.table, &query).await? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A component that has rows which an import would mix with.
pub(crate) async fn with_data(
    client: &Client,
    parts: &[Part],
) -> Result<Option<&'static str>, Error> {
    for part in parts {
        for table in part.data {
            if has_rows(client, table, &format!("SELECT FROM {table}")).await? {
                return Ok(Some(part.component));
            }
        }
    }
    Ok(None)
}

/// Whether a query of a table finds rows. A database that is empty, or of an earlier version, may be without the table.
async fn has_rows(client: &Client, table: &str, query: &str) -> Result<bool, Error> {
    let is_there = format!("SELECT to_regclass('{table}') IS NOT NULL");
    Ok(value(client, &is_there).await?
        && value(client, &format!("SELECT EXISTS ({query})")).await?)
}

pub(crate) async fn batch(client: &Client, statements: &str) -> Result<(), Error> {
    let done = client.batch_execute(statements).await;
    done.map_err(Error::statement)
}

/// The one value that a query returns.
pub(crate) async fn value<T>(client: &Client, query: &str) -> Result<T, Error>
where
    T: for<'a> FromSql<'a>,
{
    let rows = client.query_typed(query, &[]).await;
    let row = rows.map_err(Error::statement)?.pop();
    let row = row.ok_or(tidings_postgres::Error::NoRow)?;
    row.try_get(0).map_err(Error::statement)
}
