use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use tidings_postgres::tokio_postgres::error::SqlState;
use tidings_postgres::tokio_postgres::types::Type;
use tidings_postgres::{Client, Config, Database};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::database::{IS_UNFINISHED, batch, is_in_use, value, with_data};
use crate::rows::{self, Chunk};
use crate::starting::LOCK_ALONE;
use crate::{Error, Part, Source, Table};

/// Chunks that are read ahead.
const AHEAD: usize = 2;

/// How long the import waits for locks of others.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause between two questions whether an import has ended.
const PAUSE: Duration = Duration::from_millis(100);

/// Held by the session, so that it ends with the import. The tables of another schema have another one.
const LOCK: &str =
    "SELECT pg_advisory_lock(hashtextextended(current_schema()::text, 6074931807742215))";

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The table that is being filled.
    pub table: &'static str,
    /// Rows that are in the database.
    pub rows: u64,
    /// Rows that will be.
    pub of: u64,
}

/// Whether an import into the database was begun and not finished. It must not be used then.
///
/// # Errors
///
/// Those of [`Database::run`].
///
/// # Cancel safety
///
/// Dropping the future changes nothing.
pub async fn is_unfinished(database: &Database) -> Result<bool, tidings_postgres::Error> {
    let asked = database.run(|client| async move { client.query_typed(IS_UNFINISHED, &[]).await });
    let row = asked.await?.pop().ok_or(tidings_postgres::Error::NoRow)?;
    row.try_get(0)
        .map_err(tidings_postgres::Error::of_statement)
}

/// All rows are in the database, which is still marked as [unfinished](is_unfinished).
#[derive(Debug)]
#[must_use = "the import ends with `finish`"]
pub struct Copied<'a> {
    source: &'a Source,
    target: &'a Config,
    client: Client,
    rows: u64,
}

/// A database that takes this import, and no other one as long as this exists.
#[derive(Debug)]
#[must_use = "the import goes on with `copy`"]
pub struct Locked<'a> {
    source: &'a Source,
    target: &'a Config,
    client: Client,
}

/// Looks whether the database takes an import of the file, and keeps other imports out. Nothing changes: the tables
/// need not be there, and are made only in a database that has passed.
///
/// The connection keeps its session: a pooler in between must not hand it to others.
///
/// # Errors
///
/// [`Error::NotEmpty`], [`Error::OtherFile`], [`Error::InUse`] or [`Error::Running`]; [`Error::Target`].
///
/// # Cancel safety
///
/// Dropping the future changes nothing.
pub async fn lock<'a>(source: &'a Source, target: &'a Config) -> Result<Locked<'a>, Error> {
    let client = target.connect().await?;
    lock_session(&client).await?;
    look(&client, source).await?;
    Ok(Locked {
        source,
        target,
        client,
    })
}

impl<'a> Locked<'a> {
    /// Copies the rows of all parts; the tables must be there. [`Copied::finish`] ends the import.
    ///
    /// # Errors
    ///
    /// [`Error::NotEmpty`], [`Error::OtherFile`] or [`Error::InUse`], after which nothing has changed: a server may have
    /// used the database since [`lock`]. After any other error the database may be [unfinished](is_unfinished), and the
    /// import can be repeated.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves an unfinished database.
    pub async fn copy(self, mut report: impl FnMut(Progress)) -> Result<Copied<'a>, Error> {
        let Self {
            source,
            target,
            client,
        } = self;
        begin(&client, source).await?;
        let mut progress = Progress {
            table: "",
            rows: 0,
            of: 0,
        };
        for table in tables(source.parts) {
            let count = format!("SELECT count(*) FROM {}", table.from);
            progress.of += source.number(count).await?.unsigned_abs();
        }
        for table in tables(source.parts) {
            progress.table = table.name;
            report(progress);
            fill(source, &client, table, |rows| {
                progress.rows += rows as u64;
                report(progress);
            })
            .await?;
            batch(&client, &format!("ANALYZE {}", table.name)).await?;
        }
        Ok(Copied {
            source,
            target,
            client,
            rows: progress.rows,
        })
    }
}

impl Copied<'_> {
    /// Removes the mark of the database, and returns how many rows were copied.
    ///
    /// What is not to happen after the end of an import, if the process is killed, happens before this call.
    ///
    /// # Errors
    ///
    /// [`Error::Unconfirmed`] when the import may have ended or not; [`Error::InUse`] when a program uses the database,
    /// which one that is not kept out by [`Starting`](crate::Starting) may have begun to do. After any other error the
    /// database is [unfinished](is_unfinished), and the import can be repeated.
    ///
    /// # Cancel safety
    ///
    /// A dropped future leaves a database that may be unfinished or not.
    pub async fn finish(self) -> Result<u64, Error> {
        let lost = match finish(self.source, &self.client).await {
            Err(Error::Target(error)) if error.may_have_been_done() => error,
            finished => return finished.map(|()| self.rows),
        };
        // Its session would keep the lock.
        drop(self.client);
        match is_finished(self.target).await {
            Ok(true) => Ok(self.rows),
            Ok(false) => Err(lost.into()),
            Err(_) => Err(Error::Unconfirmed(lost)),
        }
    }
}

/// Whether an import has ended whose connection was lost. A server that starts again has some time for it.
async fn is_finished(target: &Config) -> Result<bool, Error> {
    let give_up_at = Instant::now() + LOCK_TIMEOUT;
    loop {
        let asked = async {
            let client = target.connect().await?;
            // The lost session has it until its commit has ended.
            lock_session(&client).await?;
            Ok(!value::<bool>(&client, IS_UNFINISHED).await?)
        };
        match asked.await {
            Err(Error::Target(error)) if error.is_unavailable() && Instant::now() < give_up_at => {
                sleep(PAUSE).await;
            }
            asked => return asked,
        }
    }
}

fn tables(parts: &'static [Part]) -> impl Iterator<Item = &'static Table> {
    parts.iter().flat_map(|part| part.tables)
}

/// Keeps other imports out. The session of one that was killed may last a moment longer.
async fn lock_session(client: &Client) -> Result<(), Error> {
    let timeout = LOCK_TIMEOUT.as_millis();
    batch(client, &format!("SET lock_timeout = {timeout}")).await?;
    match client.batch_execute(LOCK).await {
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Err(Error::Running),
        locked => locked.map_err(Error::statement),
    }
}

/// Refuses a database that is in use or has data, unless the data are of an earlier import of the same file. Returns
/// whether it is marked by that.
async fn look(client: &Client, source: &Source) -> Result<bool, Error> {
    if is_in_use(client, source.parts).await? {
        return Err(Error::InUse);
    }
    if value(client, IS_UNFINISHED).await? {
        let begun: String = value(client, "SELECT file FROM tidings_import").await?;
        if begun != source.file() {
            return Err(Error::OtherFile { file: begun });
        }
        return Ok(true);
    }
    match with_data(client, source.parts).await? {
        Some(component) => Err(Error::NotEmpty { component }),
        None => Ok(false),
    }
}

/// Marks the database, after another look at what is in it, and removes what an earlier import has left.
async fn begin(client: &Client, source: &Source) -> Result<(), Error> {
    batch(client, "SET synchronous_commit = off; BEGIN").await?;
    match client.batch_execute(LOCK_ALONE).await {
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
            return Err(Error::InUse);
        }
        locked => locked.map_err(Error::statement)?,
    }
    // First without locks, for which others would have to wait.
    look(client, source).await?;
    let names: Vec<_> = tables(source.parts).map(|table| table.name).collect();
    let names = names.join(", ");
    batch(client, &format!("LOCK TABLE {names}")).await?;
    // What was stored until then by a server that does not know of the locks.
    if !look(client, source).await? {
        batch(client, "CREATE TABLE tidings_import (file text NOT NULL)").await?;
        let mark = "INSERT INTO tidings_import VALUES ($1)";
        let file = source.file();
        let marked = client.query_typed(mark, &[(&file, Type::TEXT)]).await;
        marked.map_err(Error::statement)?;
    }
    batch(client, &format!("TRUNCATE {names}; COMMIT")).await
}

/// Copies the rows of one table, each chunk in a transaction of its own.
async fn fill(
    source: &Source,
    client: &Client,
    table: &'static Table,
    mut copied: impl FnMut(usize),
) -> Result<(), Error> {
    let with: Option<String> = match table.with {
        None => None,
        Some(query) => Some(value(client, query).await?),
    };
    let (sender, mut chunks) = mpsc::channel::<Chunk>(AHEAD);
    let reading = source.database.read(move |connection| {
        rows::read(connection, table, with.as_deref(), &sender).map_err(tidings_sqlite::Error::from)
    });
    let copy = format!("COPY {} ({}) FROM STDIN", table.name, table.columns);
    let writing = async {
        while let Some(Chunk { rows, text }) = chunks.recv().await {
            let sink = client.copy_in::<str, Bytes>(&copy).await;
            let mut sink = pin!(sink.map_err(Error::statement)?);
            sink.send(text).await.map_err(Error::statement)?;
            sink.finish().await.map_err(Error::statement)?;
            copied(rows);
        }
        Ok(())
    };
    let reading = async { reading.await.map_err(Error::Source) };
    tokio::try_join!(reading, writing).map(drop)
}

/// Sets the sequences and removes the mark, in one transaction that is on disk when it returns.
async fn finish(source: &Source, client: &Client) -> Result<(), Error> {
    batch(
        client,
        "RESET synchronous_commit; BEGIN;
         SELECT set_config('synchronous_commit', 'local', true)
         WHERE current_setting('synchronous_commit') = 'off'",
    )
    .await?;
    if is_in_use(client, source.parts).await? {
        return Err(Error::InUse);
    }
    for sequence in source.parts.iter().flat_map(|part| part.sequences) {
        let last = source.number(sequence.last.to_owned()).await?;
        if last > 0 {
            let set = "SELECT setval(pg_get_serial_sequence($1, $2), $3)";
            let parameters: [tidings_postgres::Parameter<'_>; 3] = [
                (&sequence.table, Type::TEXT),
                (&sequence.column, Type::TEXT),
                (&last, Type::INT8),
            ];
            let set = client.query_typed(set, &parameters).await;
            set.map_err(Error::statement)?;
        }
    }
    batch(client, "DROP TABLE tidings_import; COMMIT").await
}
