//! Where statements run.

use tidings_postgres::tokio_postgres::{GenericClient, Row};
use tidings_postgres::{Connections, Error, Parameter};

/// Runs statements: each in a transaction of its own, or all in the caller's.
pub(super) trait Statements: Sync {
    fn query(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> impl Future<Output = Result<Vec<Row>, Error>> + Send;

    /// Runs a statement that always returns a row.
    fn row(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> impl Future<Output = Result<Row, Error>> + Send {
        async {
            let rows = self.query(statement, parameters).await?;
            rows.into_iter().next().ok_or(Error::NoRow)
        }
    }
}

impl Statements for Connections {
    async fn query(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Error> {
        Self::query(self, statement, parameters).await
    }
}

/// The caller's own transaction.
pub(super) struct InTransaction<'a, C>(pub(super) &'a C);

impl<C: GenericClient + Sync> Statements for InTransaction<'_, C> {
    async fn query(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Error> {
        let rows = self.0.query_typed(statement, parameters).await;
        rows.map_err(Error::of_statement)
    }
}
