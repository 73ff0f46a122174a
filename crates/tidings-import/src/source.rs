use tidings_sqlite::Database;
use tidings_sqlite::rusqlite::{Connection, OptionalExtension};

use crate::{Error, Part};

/// A file whose tables are of the version that this program imports.
///
/// Nothing else may write to it until the import has ended: open it with an exclusive lock.
#[derive(Debug, Clone)]
pub struct Source {
    pub(crate) database: Database,
    pub(crate) parts: &'static [Part],
}

impl Source {
    /// Checks the file. It must be done before the components open it, which would bring old tables up to date.
    ///
    /// # Errors
    ///
    /// [`Error::NoData`], [`Error::OlderSource`] or [`Error::NewerSource`]; [`Error::Source`] when the file cannot be read.
    pub async fn check(database: Database, parts: &'static [Part]) -> Result<Self, Error> {
        database.read(|connection| check(connection, parts)).await?;
        Ok(Self { database, parts })
    }

    /// The file.
    pub fn database(&self) -> &Database {
        &self.database
    }

    /// The file's name, by which an import is known.
    pub(crate) fn file(&self) -> String {
        self.database.path().display().to_string()
    }

    /// Reads one number; 0 for NULL.
    pub(crate) async fn number(&self, query: String) -> Result<i64, Error> {
        let read = move |connection: &Connection| {
            let number: Option<i64> = connection.query_row(&query, [], |row| row.get(0))?;
            Ok::<_, tidings_sqlite::Error>(number.unwrap_or(0))
        };
        Ok(self.database.read(read).await?)
    }
}

fn check(connection: &Connection, parts: &[Part]) -> Result<(), Error> {
    let is_ours = connection
        .prepare("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'tidings_schema'")
        .and_then(|mut statement| statement.exists([]))
        .map_err(tidings_sqlite::Error::from)?;
    if !is_ours {
        return Err(Error::NoData);
    }
    for part in parts {
        let found: Option<u32> = connection
            .query_row(
                "SELECT version FROM tidings_schema WHERE component = ?1",
                [part.component],
                |row| row.get(0),
            )
            .optional()
            .map_err(tidings_sqlite::Error::from)?;
        let (component, known) = (part.component, part.version);
        let found = found.unwrap_or(0) as usize;
        if found < known {
            return Err(Error::OlderSource {
                component,
                found,
                known,
            });
        }
        if found > known {
            return Err(Error::NewerSource {
                component,
                found,
                known,
            });
        }
    }
    Ok(())
}
