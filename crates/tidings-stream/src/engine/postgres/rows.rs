//! Running statements, and reading what they return.

use tidings_postgres::tokio_postgres::Row;
use tidings_postgres::tokio_postgres::types::{FromSql, FromSqlOwned};
use tidings_postgres::{Connections, Error as DatabaseError, Typed};

use crate::{Error, Result};

/// The rows that a statement returns.
pub(super) async fn rows(
    connections: &Connections,
    statement: &str,
    parameters: &[&dyn Typed],
) -> Result<Vec<Row>, DatabaseError> {
    let parameters: Vec<_> = parameters.iter().map(|it| it.parameter()).collect();
    connections.query(statement, &parameters).await
}

/// The one row that a statement returns, if it returns one.
pub(super) async fn row(
    connections: &Connections,
    statement: &str,
    parameters: &[&dyn Typed],
) -> Result<Option<Row>, DatabaseError> {
    Ok(rows(connections, statement, parameters).await?.pop())
}

/// The one column of the one row that a statement returns.
pub(super) async fn value<T: FromSqlOwned>(
    connections: &Connections,
    statement: &str,
    parameters: &[&dyn Typed],
) -> Result<T> {
    let row = row(connections, statement, parameters).await?;
    get(&row.ok_or(DatabaseError::NoRow)?, 0)
}

/// A column.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T> {
    row.try_get(column).map_err(Error::backend)
}

/// A column with a number that is never negative.
pub(super) fn number(row: &Row, column: usize) -> Result<u64> {
    get(row, column).map(i64::cast_unsigned)
}

/// A column with a text that may have a NUL, as no text of PostgreSQL may.
pub(super) fn text(row: &Row, column: usize) -> Result<Option<String>> {
    let text: Option<Vec<u8>> = get(row, column)?;
    let text = text.map(String::from_utf8).transpose();
    text.map_err(Error::backend)
}
