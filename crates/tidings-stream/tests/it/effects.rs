//! What handlers do in transactions of their own, in which they settle their messages.

use std::collections::BTreeMap;

use futures_util::future::BoxFuture;
use tidings_sqlite::Database;
use tidings_stream::{Error, Message, postgres, sqlite};
use tidings_test_support::connect;

/// Where the effects are: a table beside the streams, with a row for each.
#[derive(Debug, Clone)]
pub(crate) enum Effects {
    Sqlite(Database),
    /// The URL of the database.
    Postgres(String),
}

/// Why there was no effect.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) enum Failed {
    Streams(#[from] Error),
    Postgres(#[from] postgres::tokio_postgres::Error),
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Commit,
    Rollback,
}

const TABLE: &str = "CREATE TABLE effect (
    worker bigint NOT NULL, id bigint NOT NULL, attempt bigint NOT NULL, PRIMARY KEY (worker, id))";

impl Effects {
    /// Makes the table.
    pub(crate) async fn create(&self) {
        match self {
            Self::Sqlite(database) => {
                let table = TABLE.replace("bigint", "INTEGER");
                let making = database.write(move |it| Ok::<_, Error>(it.execute_batch(&table)?));
                making.await.unwrap();
            }
            Self::Postgres(url) => connect(url).await.batch_execute(TABLE).await.unwrap(),
        }
    }

    /// Has the effect of a message, once for each worker, and settles the message, in one transaction.
    pub(crate) fn apply<'a>(
        &'a self,
        worker: usize,
        message: &'a Message,
        end: End,
    ) -> BoxFuture<'a, Result<(), Failed>> {
        let row = [
            i64::try_from(worker).unwrap(),
            message.id.as_u64().cast_signed(),
            i64::from(message.attempt),
        ];
        Box::pin(async move {
            match self {
                Self::Sqlite(database) => {
                    let message = message.clone();
                    let writing = database.write(move |transaction| {
                        transaction.execute("INSERT INTO effect VALUES (?1, ?2, ?3)", row)?;
                        sqlite::settle_in(transaction, &message)?;
                        match end {
                            End::Commit => Ok(()),
                            End::Rollback => Err(Error::Closed),
                        }
                    });
                    match (writing.await, end) {
                        (Err(Error::Closed), End::Rollback) => {}
                        (written, _) => written?,
                    }
                }
                Self::Postgres(url) => {
                    let (mut client, connection) =
                        postgres::tokio_postgres::connect(url, postgres::tokio_postgres::NoTls)
                            .await?;
                    let _running = tokio::spawn(connection);
                    let transaction = client.transaction().await?;
                    let [worker, id, attempt] = &row;
                    let insert = "INSERT INTO effect VALUES ($1, $2, $3)";
                    transaction.execute(insert, &[worker, id, attempt]).await?;
                    postgres::settle_in(&transaction, message).await?;
                    match end {
                        End::Commit => transaction.commit().await?,
                        End::Rollback => transaction.rollback().await?,
                    }
                }
            }
            Ok(())
        })
    }

    /// The attempts that had an effect, by worker and message.
    pub(crate) async fn all(&self) -> BTreeMap<(usize, u64), u32> {
        const ALL: &str = "SELECT worker, id, attempt FROM effect";
        let rows: Vec<[i64; 3]> = match self {
            Self::Sqlite(database) => {
                let reading = database.read(|connection| {
                    let mut statement = connection.prepare(ALL)?;
                    let rows = statement
                        .query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))?;
                    Ok::<_, Error>(rows.collect::<Result<_, _>>()?)
                });
                reading.await.unwrap()
            }
            Self::Postgres(url) => {
                let rows = connect(url).await.query(ALL, &[]).await.unwrap();
                rows.iter()
                    .map(|row| [0, 1, 2].map(|at| row.get(at)))
                    .collect()
            }
        };
        rows.into_iter()
            .map(|[worker, id, attempt]| {
                let attempt = u32::try_from(attempt).unwrap();
                let worker = usize::try_from(worker).unwrap();
                ((worker, id.cast_unsigned()), attempt)
            })
            .collect()
    }
}
