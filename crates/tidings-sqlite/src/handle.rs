use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rusqlite::{Connection, Transaction};

use crate::{Database, Error};

/// What one store has of a [`Database`]: it can be closed while other stores use the file.
///
/// Clones share whether it is closed.
#[derive(Debug, Clone)]
pub struct Handle {
    database: Database,
    closed: Arc<AtomicBool>,
}

impl Handle {
    /// A handle that is open.
    pub fn new(database: Database) -> Self {
        Self {
            database,
            closed: Arc::default(),
        }
    }

    /// Refuses all later calls on this handle and its clones. The database stays open.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// As [`Database::read`].
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after [`close`](Self::close), and those of [`Database::read`].
    pub async fn read<T, E, F>(&self, query: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.check_open()?;
        self.database.read(query).await
    }

    /// As [`Database::list`].
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after [`close`](Self::close), and those of [`Database::list`].
    pub async fn list<T, E, F>(&self, query: F) -> Result<T, E>
    where
        F: FnOnce(&Connection) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.check_open()?;
        self.database.list(query).await
    }

    /// As [`Database::write`].
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after [`close`](Self::close), and those of [`Database::write`].
    pub async fn write<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.check_open()?;
        self.database.write(job).await
    }

    /// As [`Database::write_relaxed`].
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] after [`close`](Self::close), and those of [`Database::write_relaxed`].
    pub async fn write_relaxed<T, E, F>(&self, job: F) -> Result<T, E>
    where
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<Error> + Send + 'static,
    {
        self.check_open()?;
        self.database.write_relaxed(job).await
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.closed.load(Ordering::Acquire) {
            Err(Error::Closed)
        } else {
            Ok(())
        }
    }
}
