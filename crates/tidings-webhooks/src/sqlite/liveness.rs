//! Knowing whether another store is open on the same file.

use std::fs::File;
use std::path::{Path, PathBuf};

use rusqlite::Transaction;

use crate::StoreError;

/// A lock on a file beside the database that all open stores share. The operating system frees it with
/// the process. Two stores of one process hold it independently, since each opens the file for itself.
#[derive(Debug)]
pub(super) struct Liveness {
    file: Option<File>,
}

impl Liveness {
    /// Registers a store, and runs `if_alone` when no other is open.
    ///
    /// A store that is alone could have the lock for itself. It has, for a moment, and only inside a
    /// writing transaction: SQLite lets one of those run at a time, in all processes, so no store
    /// waits for the lock, and two stores that are opened together do not both find themselves alone.
    ///
    /// Where the file system has no locks, a store takes itself to be in company: then the lanes of
    /// an earlier run wait until their leases end.
    pub(super) fn register(
        transaction: &Transaction<'_>,
        database: &Path,
        if_alone: impl FnOnce(&Transaction<'_>) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let mut path = database.as_os_str().to_owned();
        path.push(".webhooks.lock");
        let path = PathBuf::from(path);
        let (file, alone) = match lock(&path) {
            Ok((file, alone)) => (Some(file), alone),
            Err(error) => {
                tracing::warn!(
                    path = %path.display(), error = &error as &dyn std::error::Error,
                    "the lock file cannot be used, lanes of an earlier run are free when their leases end"
                );
                (None, false)
            }
        };
        if alone {
            if_alone(transaction)?;
        }
        Ok(Self { file })
    }
}

impl Drop for Liveness {
    /// Closing the file would not do: a child that this process is just starting has a copy of it
    /// until its own program begins, and would keep the lock.
    fn drop(&mut self) {
        if let Some(Err(error)) = self.file.as_ref().map(File::unlock) {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "the lock file is left locked until the process ends"
            );
        }
    }
}

/// Takes the lock together with the others, and returns whether there were none.
fn lock(path: &Path) -> Result<(File, bool), std::io::Error> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    let alone = file.try_lock().is_ok();
    // From alone to shared, or from nothing to shared.
    file.lock_shared()?;
    Ok((file, alone))
}
